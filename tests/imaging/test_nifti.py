"""NIfTI round trips, repairs and scaling."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import ORIENTATIONS, oriented_affine, step_names, turned_affine
from numpy.typing import NDArray

from imaging.nifti import read_nifti, write_nifti
from imaging.volume import Volume

AFFINE = oriented_affine((0.8, 0.9, 2.5), (-31.5, 12.25, -400.0), order=(1, 2, 0), signs=(1.0, -1.0, -1.0))


def numbered(dtype: str, shape: tuple[int, int, int] = (3, 4, 5)) -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
def test_written_volume_is_read_back_with_its_dtype(tmp_path: Path, name: str, dtype: str) -> None:
    write_nifti(Volume(numbered(dtype), AFFINE), tmp_path / name)
    back = read_nifti(tmp_path / name)
    assert back.array.dtype == np.dtype(dtype)
    assert np.array_equal(back.array, numbered(dtype))
    assert np.allclose(back.affine, AFFINE, atol=1e-5)
    assert back.steps == ()
    assert [p.name for p in tmp_path.iterdir()] == [name]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.floats(0.4, 7)] * 3), st.tuples(*[st.floats(-800, 800)] * 3))
def test_affine_survives_for_every_orientation(
    tmp_path_factory: pytest.TempPathFactory,
    orientation: tuple[tuple[int, ...], tuple[float, ...]],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
) -> None:
    path = tmp_path_factory.mktemp("affine") / "a.nii"
    affine = oriented_affine(spacing, origin, *orientation)
    write_nifti(Volume(numbered("int16"), affine), path)
    back = read_nifti(path)
    assert np.allclose(back.affine, affine, atol=1e-3)
    assert np.array_equal(back.array, numbered("int16"))


def test_nibabel_reads_what_is_written_in_the_same_place(tmp_path: Path) -> None:
    volume = Volume(numbered("int16"), turned_affine((0.7, 0.8, 3.0), 12.0))
    write_nifti(volume, tmp_path / "a.nii.gz")
    image = nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(np.asanyarray(image.dataobj), volume.array)
    assert np.allclose(image.get_sform(), volume.affine, atol=1e-4)
    assert np.allclose(image.get_qform(), volume.affine, atol=1e-3)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)


def test_equal_volumes_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(Volume(numbered("int16"), AFFINE), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_bool_is_written_as_uint8_and_int64_is_refused(tmp_path: Path) -> None:
    write_nifti(Volume(numbered("int16") > 9, AFFINE), tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").array.dtype == np.uint8
    with pytest.raises(ValueError, match="cannot write int64"):
        write_nifti(Volume(numbered("int64"), AFFINE), tmp_path / "b.nii")
    assert not (tmp_path / "b.nii").exists()


def test_gzip_named_nii_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    write_nifti(Volume(numbered("int16"), AFFINE), tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    back = read_nifti(tmp_path / "a.nii")
    assert np.array_equal(back.array, numbered("int16"))
    assert step_names(back) == ["gunzip_despite_name"]


def test_plain_file_named_gz_is_read_too(tmp_path: Path) -> None:
    write_nifti(Volume(numbered("int16"), AFFINE), tmp_path / "a.nii")
    (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    assert step_names(read_nifti(tmp_path / "a.nii.gz")) == ["plain_despite_name"]


def test_file_of_other_byte_order_and_an_extension_is_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a note of some length"))
    nib.save(nib.Nifti1Image(numbered("int16"), AFFINE, header), tmp_path / "a.nii")
    back = read_nifti(tmp_path / "a.nii")
    assert np.array_equal(back.array, numbered("int16"))
    assert back.array.dtype == np.int16


def test_nifti_2_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(numbered("uint8"), AFFINE), tmp_path / "a.nii.gz")
    assert np.array_equal(read_nifti(tmp_path / "a.nii.gz").array, numbered("uint8"))


def test_trailing_singleton_axis_is_dropped_and_noted(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(numbered("int16")[..., None], AFFINE), tmp_path / "a.nii")
    back = read_nifti(tmp_path / "a.nii")
    assert back.shape == (3, 4, 5)
    assert back.steps[0].parameters == {"shape_before": [3, 4, 5, 1]}


def test_bytes_after_the_voxels_are_noted(tmp_path: Path) -> None:
    write_nifti(Volume(numbered("int16"), AFFINE), tmp_path / "a.nii")
    with (tmp_path / "a.nii").open("ab") as file:
        file.write(b"\0" * 40)
    back = read_nifti(tmp_path / "a.nii")
    assert back.steps[0].as_json() == '{"bytes": 40, "step": "ignore_trailing_bytes"}'


@pytest.mark.parametrize(
    ("slope", "inter", "dtype", "expected"),
    [
        (1.0, -1024.0, "int16", -1015.0),  # whole numbers keep integers: 9 - 1024
        (2.0, 0.0, "int16", 18.0),
        (0.5, 10.0, "float32", 14.5),
        (0.0, 55.0, "int16", 9.0),  # slope 0 means not scaled
        (float("nan"), float("nan"), "int16", 9.0),
        (10000.0, 0.0, "int32", 90000.0),
    ],
)
def test_slope_and_intercept(tmp_path: Path, slope: float, inter: float, dtype: str, expected: float) -> None:
    write_nifti(Volume(numbered("int16"), AFFINE), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([slope, inter], dtype="<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    back = read_nifti(tmp_path / "a.nii")
    assert back.array.dtype == np.dtype(dtype)
    assert back.array.ravel()[9] == expected


def test_sheared_affine_is_kept_and_its_angle_noted(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 2 * np.tan(np.radians(14.0))
    write_nifti(Volume(numbered("int16"), affine), tmp_path / "a.nii")
    back = read_nifti(tmp_path / "a.nii")
    assert np.allclose(back.affine, affine, atol=1e-6)
    assert back.steps[0].name == "sheared_affine"
    assert back.steps[0].parameters["degrees"] == pytest.approx(14.0, abs=1e-3)


def test_affine_from_chooses_one_of_two(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbered("int16"), AFFINE)
    other = oriented_affine((0.8, 0.9, 2.5), (5.0, 6.0, 7.0))
    image.set_sform(AFFINE, code=1)
    image.set_qform(other, code=1)
    nib.save(image, tmp_path / "a.nii")
    assert np.allclose(read_nifti(tmp_path / "a.nii", affine_from="sform").affine, AFFINE, atol=1e-4)
    by_qform = read_nifti(tmp_path / "a.nii", affine_from="qform")
    assert np.allclose(by_qform.affine, other, atol=1e-4)
    assert step_names(by_qform) == ["choose_affine"]


def test_oblique_half_turn_whose_quaternion_lost_digits_is_accepted(tmp_path: Path) -> None:
    # LPS, tilted by 10 degrees: the quaternion's first number is 0 and float32 leaves it uncertain
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ turned_affine((0.8, 0.8, 1.0), 10.0)
    write_nifti(Volume(np.zeros((512, 512, 2), dtype=np.int16), affine), tmp_path / "a.nii.gz")
    assert np.allclose(read_nifti(tmp_path / "a.nii.gz").affine, affine, atol=1e-4)


def test_micrometres_become_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbered("int16"), np.diag([800.0, 800.0, 2000.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    back = read_nifti(tmp_path / "a.nii")
    assert back.spacing_mm == pytest.approx((0.8, 0.8, 2.0))
    assert step_names(back) == ["convert_units"]


def test_several_gzip_members_are_one_stream(tmp_path: Path) -> None:
    write_nifti(Volume(numbered("int16"), AFFINE), tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]))
    assert np.array_equal(read_nifti(tmp_path / "b.nii.gz").array, numbered("int16"))
