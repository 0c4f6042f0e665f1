"""Each bad NIfTI file and what its refusal says."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from imaging_samples import oriented_affine

from imaging.errors import BadInput
from imaging.nifti import read_nifti, write_nifti
from imaging.volume import Volume

AFFINE = oriented_affine((0.8, 0.9, 2.5), (-31.5, 12.25, -400.0), signs=(-1.0, -1.0, 1.0))
ARRAY = np.random.default_rng(0).integers(-1024, 2000, (16, 17, 18)).astype(np.int16)
TOTAL = 352 + 16 * 17 * 18 * 2


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    write_nifti(Volume(ARRAY, AFFINE), tmp_path / "scan.nii")
    return tmp_path / "scan.nii"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_nifti(Volume(ARRAY, AFFINE), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def refusal(path: Path, **options: int) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_nifti(path, **options)  # type: ignore[arg-type]
    return caught.value


def patch(path: Path, offset: int, values: object, dtype: str) -> None:
    raw = bytearray(path.read_bytes())
    new = np.atleast_1d(np.array(values, dtype=dtype)).tobytes()
    raw[offset : offset + len(new)] = new
    path.write_bytes(raw)


def test_truncated_plain_file_says_bytes_found_and_expected(plain: Path) -> None:
    plain.write_bytes(plain.read_bytes()[:5000])
    found = refusal(plain)
    assert found.code == "truncated"
    assert "5000 bytes" in found.found
    assert found.expected == f"{TOTAL} bytes"


@pytest.mark.parametrize("left", [4, 100, 3000, -5])
def test_truncated_gzip_is_refused(packed: Path, left: int) -> None:
    packed.write_bytes(packed.read_bytes()[:left])
    assert refusal(packed).code == "truncated"


def test_gzip_of_a_truncated_file_is_refused(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "whole.nii.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()[:-700]))
    found = refusal(path)
    assert (found.code, found.found, found.expected) == ("truncated", f"{TOTAL - 700} bytes", f"{TOTAL} bytes")


def test_every_flipped_byte_of_a_gzip_is_noticed(packed: Path) -> None:
    good = packed.read_bytes()
    # the first ten bytes are gzip's header, where the time and the system's code may be anything
    for position in [*range(12, len(good), 997), *range(len(good) - 8, len(good))]:
        bad = bytearray(good)
        bad[position] ^= 0x10
        packed.write_bytes(bad)
        assert refusal(packed).code in ("damaged", "truncated", "nifti_header", "dimensions", "too_large"), position


def test_bad_crc_is_named(packed: Path) -> None:
    raw = bytearray(packed.read_bytes())
    raw[-8] ^= 1
    packed.write_bytes(raw)
    found = refusal(packed)
    assert found.code == "damaged"
    assert "CRC" in str(found)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Sign in", b"\n\n <HTML><body>", b"\xef\xbb\xbf<html>"])
def test_login_page_is_called_one(tmp_path: Path, page: bytes) -> None:
    for name, body in (("a.nii.gz", page), ("b.nii", page), ("c.nii.gz", gzip.compress(page + b" " * 600))):
        (tmp_path / name).write_bytes(body)
        found = refusal(tmp_path / name)
        assert found.code == "html"
        assert "HTML, probably a login page" in str(found)


def test_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")
    assert "0 bytes" in str(refusal(tmp_path / "a.nii.gz"))
    (tmp_path / "b.nii").write_bytes(b"PK\x03\x04" + b"x" * 600)
    assert refusal(tmp_path / "b.nii").code == "nifti_header"
    with pytest.raises(FileNotFoundError):
        read_nifti(tmp_path / "none.nii")


def test_demand_over_the_limit_is_refused_before_memory_is_taken(packed: Path) -> None:
    raw = bytearray(gzip.decompress(packed.read_bytes()))
    raw[42:48] = np.array([32767, 32767, 32767], dtype="<i2").tobytes()
    packed.write_bytes(gzip.compress(bytes(raw)))
    found = refusal(packed)
    assert found.code == "too_large"
    assert str(32767**3 * 2) in found.found
    assert str(8 * 2**30) in found.expected


def test_demand_that_the_file_cannot_hold_is_refused(packed: Path) -> None:
    raw = bytearray(gzip.decompress(packed.read_bytes()))
    raw[42:48] = np.array([1000, 1000, 1000], dtype="<i2").tobytes()
    packed.write_bytes(gzip.compress(bytes(raw)))
    assert refusal(packed).code == "truncated"


def test_max_bytes_is_a_setting(plain: Path) -> None:
    assert refusal(plain, max_bytes=100).expected == "at most 100 bytes"


@pytest.mark.parametrize(
    ("dim", "text"),
    [([4, 16, 17, 18, 3], "(16, 17, 18, 3)"), ([3, 16, -17, 18], "-17"), ([0], "0 dimensions"), ([2, 4, 4], "2 dim")],
)
def test_dimensions(plain: Path, dim: list[int], text: str) -> None:
    patch(plain, 40, dim, "<i2")
    found = refusal(plain)
    assert found.code == "dimensions"
    assert text in found.found


@pytest.mark.parametrize(("code", "name"), [(128, "RGB"), (32, "COMPLEX"), (2304, "RGBA"), (1, "BINARY")])
def test_colour_and_complex_voxels(plain: Path, code: int, name: str) -> None:
    patch(plain, 70, code, "<i2")
    found = refusal(plain)
    assert found.code == "voxel_type"
    assert name.lower() in found.found.lower()


def test_nan_and_inf_are_counted_and_located(tmp_path: Path) -> None:
    array = np.zeros((3, 4, 5), dtype=np.float32)
    array[1, 2, 3], array[2, 0, 0] = np.nan, -np.inf
    write_nifti(Volume(array, AFFINE), tmp_path / "a.nii")
    found = refusal(tmp_path / "a.nii")
    assert found.code == "not_finite"
    assert found.found == "2 NaN or infinite voxels, the first at index (1, 2, 3)"


def test_sform_against_qform_gives_both(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ARRAY, AFFINE)
    image.set_sform(AFFINE, code=1)
    shifted = AFFINE.copy()
    shifted[0, 3] += 3.0
    image.set_qform(shifted, code=1)
    nib.save(image, tmp_path / "a.nii")
    found = refusal(tmp_path / "a.nii")
    assert found.code == "sform_qform"
    assert "-31.5" in found.found
    assert "-28.5" in found.found
    assert "3.00 mm apart" in found.found
    assert "affine_from" in found.remedy


def test_flip_of_a_single_slice_is_a_disagreement(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ARRAY[:, :, :1], AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0]), code=1)
    nib.save(image, tmp_path / "a.nii")
    assert refusal(tmp_path / "a.nii").code == "sform_qform"


def test_no_orientation_at_all_is_refused(plain: Path) -> None:
    patch(plain, 252, [0, 0], "<i2")
    assert "sform_code 0, qform_code 0" in refusal(plain).found


def test_chosen_affine_that_is_absent_is_refused(plain: Path) -> None:
    patch(plain, 252, [0, 1], "<i2")
    with pytest.raises(BadInput, match="qform_code 0 with affine_from 'qform'"):
        read_nifti(plain, affine_from="qform")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([[0, 0, 0, 0]] * 3, "spacing 0 along axis X"),
        ([[1, 0, 0, 0], [0, float("nan"), 0, 0], [0, 0, 1, 0]], "nan"),
        ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 0]], "determinant"),
        ([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], "axis Z"),
    ],
)
def test_degenerate_sform(plain: Path, rows: list[list[float]], text: str) -> None:
    patch(plain, 252, [0, 1], "<i2")
    patch(plain, 280, rows, "<f4")
    found = refusal(plain)
    assert found.code == "affine"
    assert text in found.found


def test_zero_spacing_in_the_qform_names_the_axis(plain: Path) -> None:
    patch(plain, 252, [1, 0], "<i2")
    patch(plain, 84, [0.0], "<f4")  # pixdim[2]
    found = refusal(plain)
    assert found.code == "affine"
    assert "spacing 0 along axis Y" in found.found


def test_infinite_slope_is_refused(plain: Path) -> None:
    patch(plain, 112, [np.inf, 0], "<f4")
    assert refusal(plain).code == "scaling"


def test_where_replaces_the_name_of_the_file(plain: Path) -> None:
    path = plain.with_name("Mustermann.nii")
    path.write_bytes(plain.read_bytes()[:5000])
    with pytest.raises(BadInput) as caught:
        read_nifti(path, where="local/s0123")
    assert str(caught.value).startswith("local/s0123: ")
    assert "Mustermann" not in str(caught.value)
