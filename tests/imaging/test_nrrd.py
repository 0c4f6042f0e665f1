"""NRRD files read in place and to the last byte, or refused with the reason."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from imaging.errors import BadInput
from imaging.nrrd import nrrd_files, nrrd_segments, read_nrrd

ARRAY = np.random.default_rng(1).integers(-1000, 2000, (5, 4, 3)).astype(np.int16)
DIRECTIONS = np.diag([0.8, 0.9, 2.5])
ORIGIN = (10.0, -20.0, 30.0)


def write(path: Path, array: np.ndarray = ARRAY, encoding: str = "gzip", **fields: object) -> Path:
    header = {"space": "left-posterior-superior", "space directions": DIRECTIONS, "space origin": ORIGIN}
    nrrd.write(str(path), array, {**header, "encoding": encoding, **fields})
    return path


def text(path: Path, header: str, voxels: bytes = ARRAY.tobytes(order="F")) -> Path:
    path.write_bytes(b"NRRD0004\n" + header.encode() + b"\n\n" + voxels)
    return path


PLAIN = (
    "type: short\ndimension: 3\nspace: LPS\nsizes: 5 4 3\nspace directions: (0.8,0,0) (0,0.9,0) (0,0,2.5)\n"
    "endian: little\nencoding: raw\nspace origin: (10,-20,30)"
)


def refusal(path: Path, **options: int) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_nrrd(path, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize(("space", "signs"), [("LPS", (-1, -1, 1)), ("RAS", (1, 1, 1)), ("LAS", (-1, 1, 1))])
def test_voxels_and_place_for_each_encoding_and_space(
    tmp_path: Path, encoding: str, space: str, signs: tuple[int, int, int]
) -> None:
    volume = read_nrrd(write(tmp_path / "a.nrrd", encoding=encoding, space=space))
    assert np.array_equal(volume.array, ARRAY)
    assert volume.array.dtype == np.int16
    expected = np.diag([*signs, 1]) @ np.array(
        [[0.8, 0, 0, 10], [0, 0.9, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]], dtype=float
    )
    assert np.allclose(volume.affine, expected)
    assert volume.steps == ()


def test_simpleitk_sees_the_same_volume(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(ARRAY.T)
    image.SetSpacing((0.8, 0.9, 2.5))
    image.SetOrigin((10, -20, 30))
    image.SetDirection((0, 1, 0, 0, 0, -1, -1, 0, 0))  # oblique enough to tell every axis apart
    sitk.WriteImage(image, tmp_path / "a.nrrd", True)
    volume = read_nrrd(tmp_path / "a.nrrd")
    assert np.array_equal(volume.array, ARRAY)
    for index in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.allclose(volume.world_mm(np.array([index]))[0], lps * (-1, -1, 1))


def test_big_endian_voxels_and_skipped_bytes(tmp_path: Path) -> None:
    header = PLAIN.replace("little", "big") + "\nbyte skip: 7"
    volume = read_nrrd(text(tmp_path / "a.nrrd", header, b"x" * 7 + ARRAY.astype(">i2").tobytes(order="F")))
    assert np.array_equal(volume.array, ARRAY)
    last = read_nrrd(text(tmp_path / "b.nrrd", PLAIN + "\nbyte skip: -1", b"junk" + ARRAY.tobytes(order="F")))
    assert np.array_equal(last.array, ARRAY)


def test_axis_of_size_one_is_dropped_as_a_step(tmp_path: Path) -> None:
    header = PLAIN.replace("dimension: 3", "dimension: 4").replace("sizes: 5", "sizes: 1 5")
    header = header.replace("space directions: ", "space directions: none ")
    volume = read_nrrd(text(tmp_path / "a.nrrd", header))
    assert np.array_equal(volume.array, ARRAY)
    assert volume.steps[0].as_json() == '{"shape_before": [1, 5, 4, 3], "step": "drop_singleton_axes"}'


def test_units_other_than_mm_are_converted_as_a_step(tmp_path: Path) -> None:
    volume = read_nrrd(text(tmp_path / "a.nrrd", PLAIN + '\nspace units: "cm" "cm" "cm"'))
    assert volume.spacing_mm == pytest.approx((8.0, 9.0, 25.0))
    assert volume.affine[:3, 3] == pytest.approx((-100.0, 200.0, 300.0))


def test_detached_header_reads_voxels_beside_it_and_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(ARRAY.tobytes(order="F"))
    path = tmp_path / "a.nhdr"
    path.write_text("NRRD0004\n" + PLAIN + "\ndata file: a.raw\n")
    assert np.array_equal(read_nrrd(path).array, ARRAY)
    assert nrrd_files(path) == (path, tmp_path / "a.raw")
    assert nrrd_files(write(tmp_path / "b.nrrd")) == (tmp_path / "b.nrrd",)


@pytest.mark.parametrize("name", ["../a.raw", "/etc/hostname", "sub/a.raw", "none.raw", "link.raw", "LIST", ".."])
def test_detached_voxels_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.raw").write_bytes(ARRAY.tobytes(order="F"))
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.raw").write_bytes(ARRAY.tobytes(order="F"))
    (folder / "link.raw").symlink_to(tmp_path / "a.raw")
    (folder / "a.nhdr").write_text("NRRD0004\n" + PLAIN + f"\ndata file: {name}\n")
    assert refusal(folder / "a.nhdr").code == "detached_header"


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("cut", [3, 40])
def test_truncated_voxels_are_refused(tmp_path: Path, encoding: str, cut: int) -> None:
    path = write(tmp_path / "a.nrrd", encoding=encoding)
    path.write_bytes(path.read_bytes()[:-cut])
    assert refusal(path).code in ("truncated", "damaged")


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress])
def test_flipped_bytes_of_packed_voxels_are_noticed(tmp_path: Path, packed: object) -> None:
    name = "gzip" if packed is gzip.compress else "bzip2"
    voxels = packed(ARRAY.tobytes(order="F"))  # type: ignore[operator]
    for place in range(12, len(voxels), 17):
        bad = bytearray(voxels)
        bad[place] ^= 0x10
        path = text(tmp_path / "a.nrrd", PLAIN.replace("raw", name), bytes(bad))
        assert refusal(path).code in ("damaged", "truncated"), place


def test_demand_over_the_limit_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    for encoding in ("raw", "gzip", "bzip2"):
        header = PLAIN.replace("5 4 3", "100000 100000 100000").replace("raw", encoding)
        assert refusal(text(tmp_path / "a.nrrd", header)).code == "too_large"
    assert refusal(write(tmp_path / "b.nrrd"), max_bytes=100).expected == "at most 100 bytes"
    header = PLAIN.replace("5 4 3", "1000 1000 1000")
    assert refusal(text(tmp_path / "c.nrrd", header)).code == "truncated"


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("space: LPS", "space: scanner-xyz", "nrrd_header", "scanner-xyz"),
        ("space: LPS\n", "", "nrrd_header", "none"),
        ("space directions: (0.8,0,0) (0,0.9,0) (0,0,2.5)", "spacings: 1 1 1", "nrrd_header", "0 space directions"),
        ("(0,0.9,0)", "none", "nrrd_header", "2 space directions"),
        ("(0,0.9,0)", "(0,0,0)", "affine", "spacing 0 along axis Y"),
        ("(0,0.9,0)", "(0.8,0,0)", "affine", "determinant 0"),
        ("(0,0.9,0)", "(0,nan,0)", "nrrd_header", "space directions"),
        ("\nspace origin: (10,-20,30)", "", "nrrd_header", "space origin []"),
        ("sizes: 5 4 3", "sizes: 5 0 3", "dimensions", "(5, 0, 3)"),
        ("sizes: 5 4 3", "sizes: 5 4", "dimensions", "3 dimensions of sizes (5, 4)"),
        ("type: short", "type: block", "voxel_type", "block"),
        ("endian: little\n", "", "nrrd_header", "endian"),
        ("encoding: raw", "encoding: ascii", "nrrd_header", "ascii"),
        ("encoding: raw", "encoding: raw\nline skip: 2", "nrrd_header", "line skip 2"),
        ("sizes: 5 4 3", "sizes 5 4 3", "nrrd_header", "does not parse"),
        ("sizes: 5 4 3\n", "", "nrrd_header", "no field sizes"),
        ("encoding: raw", 'encoding: raw\nspace units: "parsec" "mm" "mm"', "nrrd_header", "parsec"),
    ],
)
def test_header_that_leaves_doubt_is_refused(tmp_path: Path, old: str, new: str, code: str, said: str) -> None:
    assert old in PLAIN
    found = refusal(text(tmp_path / "a.nrrd", PLAIN.replace(old, new)))
    assert (found.code, said in found.found) == (code, True), found


def test_four_dimensional_images_are_refused(tmp_path: Path) -> None:
    header = PLAIN.replace("dimension: 3", "dimension: 4").replace("sizes: 5", "sizes: 2 5")
    header = header.replace("space directions: ", "space directions: none ")
    assert "(2, 5, 4, 3)" in refusal(text(tmp_path / "a.nrrd", header, ARRAY.tobytes() * 2)).found


def test_nan_is_counted_and_located(tmp_path: Path) -> None:
    array = ARRAY.astype(np.float32)
    array[1, 2, 0] = np.nan
    assert refusal(write(tmp_path / "a.nrrd", array)).found == "1 NaN or infinite voxels, the first at index (1, 2, 0)"


def test_foreign_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"<!DOCTYPE html><html>Sign in")
    found = refusal(tmp_path / "a.nrrd")
    assert (found.code, found.expected) == ("html", "an NRRD file")
    (tmp_path / "b.nrrd").write_bytes(b"PK\x03\x04" + b"x" * 600)
    assert refusal(tmp_path / "b.nrrd").code == "nrrd_header"
    (tmp_path / "c.nrrd").write_bytes(b"")
    assert refusal(tmp_path / "c.nrrd").code == "nrrd_header"
    (tmp_path / "d.nrrd").write_bytes(b"NRRD0004\n" + PLAIN.encode())
    assert refusal(tmp_path / "d.nrrd").code == "truncated"
    with pytest.raises(FileNotFoundError):
        read_nrrd(tmp_path / "none.nrrd")


def test_where_replaces_the_name_of_the_file(tmp_path: Path) -> None:
    path = text(tmp_path / "Mustermann.nrrd", PLAIN.replace("short", "block"))
    with pytest.raises(BadInput, match=r"^local/s01: ") as caught:
        read_nrrd(path, where="local/s01")
    assert "Mustermann" not in str(caught.value)


def test_names_of_slicer_segments_come_with_their_values(tmp_path: Path) -> None:
    named = "Segment0_Name:=Liver\nSegment0_LabelValue:=3\nSegment1_Name:=Spleen\nSegment1_LabelValue:=1"
    assert nrrd_segments(text(tmp_path / "a.seg.nrrd", PLAIN + "\n" + named)) == {3: "Liver", 1: "Spleen"}
    assert nrrd_segments(write(tmp_path / "b.nrrd")) == {}
    twice = named.replace("LabelValue:=1", "LabelValue:=3")
    with pytest.raises(BadInput, match="segment 1 of label value 3"):
        nrrd_segments(text(tmp_path / "c.seg.nrrd", PLAIN + "\n" + twice))
