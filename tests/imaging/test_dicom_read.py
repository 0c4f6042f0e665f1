"""DICOM series read in HU and in place, whatever order, compression and tilt they come in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_samples import LPS, SHAPE, edit, edit_all, scan, write
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import GRADIENT, ORIENTATIONS, linear_scan, oriented_affine, step_names, turned_affine, world_of
from pydicom.uid import RLELossless, generate_uid

from imaging.dicom import find_series, position_order, read_series
from imaging.resample import Grid, orient_ras, shear_degrees
from imaging.volume import Volume


def test_written_series_is_read_back(tmp_path: Path) -> None:
    write(tmp_path)
    (series,) = find_series(tmp_path)
    volume = read_series(series)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, scan().array)
    assert np.allclose(volume.affine, LPS)
    assert volume.steps == ()


@settings(max_examples=48, deadline=None)
@given(st.sampled_from(ORIENTATIONS))
def test_voxels_keep_their_place_for_every_orientation_written(
    tmp_path_factory: pytest.TempPathFactory, turn: tuple[tuple[int, ...], tuple[float, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    given_scan = linear_scan((3, 4, 5), oriented_affine((0.8, 0.9, 2.5), (-5.0, 40.0, 3.0), *turn), np.int16)
    back = orient_ras(read_series(write(folder, given_scan)))
    expected = orient_ras(given_scan)
    assert np.array_equal(back.array, expected.array)
    assert np.allclose(back.affine, expected.affine, atol=1e-6)


def test_oblique_series_keeps_its_affine(tmp_path: Path) -> None:
    volume = linear_scan((4, 5, 6), turned_affine((0.8, 0.9, 2.5), 17.0), np.int16)
    back = read_series(write(tmp_path, volume))
    assert np.allclose(back.affine, volume.affine, atol=1e-5)
    assert np.array_equal(back.array, volume.array)
    assert back.steps == ()


def test_simpleitk_sees_the_same_volume(tmp_path: Path) -> None:
    paths = write(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(p) for p in paths])
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image).T, scan().array)
    assert image.GetSpacing() == pytest.approx((0.8, 0.9, 5.0))
    assert image.GetOrigin() == pytest.approx((-20.0, -30.0, -100.0))


def test_slices_are_ordered_by_position_not_by_name_or_number(tmp_path: Path) -> None:
    paths = write(tmp_path)
    for name, number, path in zip("zyxw", (1, 9, 2, 8), paths, strict=True):
        edit(path, lambda d, n=number: setattr(d, "InstanceNumber", n))  # type: ignore[misc]
        path.rename(tmp_path / f"{name}.dcm")
    (series,) = find_series(tmp_path)
    assert np.array_equal(read_series(series).array, scan().array)
    assert position_order(sorted(tmp_path.iterdir())) == [3, 2, 1, 0]


def test_position_order_follows_the_files_given(tmp_path: Path) -> None:
    low, second, third, top = write(tmp_path)
    assert position_order([third, low, top, second]) == [1, 3, 0, 2]


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    def halve(data: Any) -> None:
        hu = data.pixel_array.astype(int) - 1024
        data.RescaleSlope, data.RescaleIntercept = 2, -1000
        data.PixelData = np.rint((hu + 1000) / 2).astype("<i2").tobytes()

    paths = write(tmp_path)
    edit(paths[1], halve)
    volume = read_series(paths)
    assert np.abs(volume.array.astype(int) - scan().array).max() <= 1
    assert np.array_equal(volume.array[:, :, 0], scan().array[:, :, 0])
    assert volume.steps[0].parameters["slope_intercept"] == [[1.0, -1024.0], [2.0, -1000.0]]


@pytest.mark.parametrize(("value", "limit"), [(-2000, None), (63536, None), (-2010, -1990)])
def test_padding_becomes_air(tmp_path: Path, value: int, limit: int | None) -> None:
    def pad(data: Any) -> None:
        pixels = data.pixel_array.copy()
        pixels[0, :2] = -2000
        data.PixelData = pixels.tobytes()
        data.add_new("PixelPaddingValue", "US" if value > 32767 else "SS", value)
        if limit is not None:
            data.add_new("PixelPaddingRangeLimit", "SS", limit)

    paths = write(tmp_path)
    edit(paths[0], pad)
    volume = read_series(paths)
    assert volume.array[:2, 0, 0].tolist() == [-1024, -1024]
    assert volume.array.min() == -1024
    assert volume.steps[0].as_json() == '{"step": "clear_padding", "voxels": 2}'


def test_padding_inside_the_hu_range_is_air_too(tmp_path: Path) -> None:
    def pad(data: Any) -> None:
        pixels = data.pixel_array.copy()
        pixels[1, 1] = 5000
        data.PixelData = pixels.tobytes()
        data.add_new("PixelPaddingValue", "SS", 5000)

    paths = write(tmp_path)
    edit(paths[0], pad)
    assert read_series(paths).array[1, 1, 0] == -1024


def test_run_length_compression_is_read(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit_all(paths, lambda data: data.compress(RLELossless))
    assert np.array_equal(read_series(paths).array, scan().array)


def test_jpeg_lossless_is_read_by_the_second_decoder(tmp_path: Path) -> None:
    paths = write(tmp_path / "series")

    def compress(data: Any) -> None:
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        writer.SetFileName(str(tmp_path / "one.dcm"))
        writer.Execute(sitk.GetImageFromArray(data.pixel_array.astype(np.uint16)))
        packed = pydicom.dcmread(tmp_path / "one.dcm")
        data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        data.PixelRepresentation = 0
        data["PixelData"] = packed["PixelData"]

    edit_all(paths, compress)
    assert "JPEG Lossless" in pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID.name
    assert np.array_equal(read_series(paths).array, scan().array)


def test_gantry_tilt_is_straightened_and_world_points_hold(tmp_path: Path) -> None:
    # slices turned by 14 degrees about x, the table moving along z, as a tilted gantry does it
    affine = turned_affine((0.9, 0.8, 5.0), -14.0)
    affine[:3, 2] = (0.0, 0.0, 5.0)
    tilted = linear_scan((5, 30, 9), affine, np.int16)
    volume = read_series(write(tmp_path, tilted))
    assert shear_degrees(volume.affine) == pytest.approx(0.0, abs=1e-6)
    assert step_names(volume) == ["straighten"]
    assert volume.steps[0].parameters["degrees"] == pytest.approx(14.0, abs=1e-3)
    assert volume.spacing_mm == pytest.approx((0.9, 0.8, 5.0 * np.cos(np.radians(14.0))))
    world = world_of(volume.shape, volume.affine)
    index = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    inside = ((index >= 0) & (index <= np.array(tilted.shape) - 1)).all(axis=-1)
    assert inside.mean() > 0.4
    assert np.abs(volume.array - world @ GRADIENT)[inside].max() <= 1.01  # both roundings to whole HU
    # the whole tilted stack is covered
    reach = (world_of(tilted.shape, affine) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
    assert reach.min() > -1e-3
    assert (reach < np.array(Grid.of(volume).shape) - 1 + 1e-2).all()


def test_identical_slice_is_dropped_and_counted(tmp_path: Path) -> None:
    paths = write(tmp_path)
    shutil.copy(paths[1], tmp_path / "copy.dcm")
    volume = read_series(find_series(tmp_path)[0])
    assert np.array_equal(volume.array, scan().array)
    assert volume.steps[0].as_json() == '{"slices": 1, "step": "drop_identical_slices"}'


@pytest.mark.parametrize("named", [True, False])
def test_localizer_in_the_series_is_dropped(tmp_path: Path, named: bool) -> None:
    paths = write(tmp_path)

    def make_localizer(data: Any) -> None:
        data.SOPInstanceUID = generate_uid(entropy_srcs=["scout"])
        data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if named else "AXIAL"]

    shutil.copy(paths[0], tmp_path / "scout.dcm")
    edit(tmp_path / "scout.dcm", make_localizer)
    volume = read_series(find_series(tmp_path)[0])
    assert np.array_equal(volume.array, scan().array)
    assert volume.steps[0].parameters == {"slices": 1, "localizers": int(named), "kept": 4}


def test_localizer_without_position_is_dropped_too(tmp_path: Path) -> None:
    paths = write(tmp_path)

    def make_localizer(data: Any) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        del data.ImagePositionPatient, data.ImageOrientationPatient, data.RescaleIntercept

    shutil.copy(paths[0], tmp_path / "scout.dcm")
    edit(tmp_path / "scout.dcm", make_localizer)
    assert np.array_equal(read_series(find_series(tmp_path)[0]).array, scan().array)


def test_other_series_among_the_files_are_dropped_by_hash(tmp_path: Path) -> None:
    paths = write(tmp_path / "a")
    other = write(tmp_path / "b", scan().with_array(scan().array + 9), series_uid="1.2.3")[:2]
    volume = read_series([*paths, *other])
    assert np.array_equal(volume.array, scan().array)
    (dropped,) = volume.steps[0].parameters["dropped"]
    assert (dropped["files"], dropped["modality"]) == (2, "CT")
    assert "1.2.3" not in volume.steps[0].as_json()


def test_single_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    volume = read_series(write(tmp_path)[:1])
    assert volume.shape == (*SHAPE[:2], 1)
    assert volume.spacing_mm == pytest.approx((0.8, 0.9, 5.0))


def test_series_are_found_in_folders_and_other_files_counted(tmp_path: Path) -> None:
    write(tmp_path / "one" / "deep")
    write(tmp_path / "two", scan().with_array(scan().array + 1))
    (tmp_path / "two" / "._IM0001.dcm").write_bytes(b"litter")
    (tmp_path / "readme.txt").write_text("no DICOM")
    found = find_series(tmp_path)
    assert [len(series.files) for series in found] == [4, 4]
    assert found.skipped == 2
    assert [series.skipped for series in found] == [0, 1]
    assert found[0].patient_key == found[1].patient_key


def test_series_without_uid_are_told_apart_by_folder(tmp_path: Path) -> None:
    def erase(data: Any) -> None:
        data.SeriesInstanceUID = ""

    edit_all(write(tmp_path / "a"), erase)
    edit_all(write(tmp_path / "b"), erase)
    assert [series.modality for series in find_series(tmp_path)] == ["CT", "CT"]
    assert np.array_equal(read_series(find_series(tmp_path)[1]).array, scan().array)


def test_no_files_is_an_error(tmp_path: Path) -> None:
    assert find_series(tmp_path) == []
    with pytest.raises(ValueError, match="no files"):
        read_series([])


def test_rounded_positions_still_form_a_regular_stack(tmp_path: Path) -> None:
    volume = linear_scan((4, 4, 30), oriented_affine((0.8, 0.9, 0.7), (1.0, 2.0, 3.0)), np.int16)
    paths = write(tmp_path, volume)

    def shake(data: Any) -> None:
        z = float(data.ImagePositionPatient[2])
        data.ImagePositionPatient = [*data.ImagePositionPatient[:2], round(z, 1) + 0.004]

    edit_all(paths, shake)
    assert read_series(paths).spacing_mm[2] == pytest.approx(0.7, abs=1e-3)


def test_volume_of_floats_is_rounded_when_written(tmp_path: Path) -> None:
    volume = Volume(np.full((3, 3, 2), 12.6, dtype=np.float32), LPS)
    assert set(np.unique(read_series(write(tmp_path, volume)).array).tolist()) == {13}
