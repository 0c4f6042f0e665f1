"""Enhanced multi-frame CT: one file read as the slices it holds, under the same checks; and why a series was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_samples import LPS, SHAPE, edit, edit_all, merge, scan, write
from imaging_samples import linear_scan, turned_affine
from pydicom.uid import RLELossless, generate_uid

from imaging.dicom import find_series, read_series
from imaging.errors import BadInput


def refusal(path: Path) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_series([path])
    return caught.value


def test_frames_in_any_order_are_the_volume_of_the_slices(tmp_path: Path) -> None:
    path = merge(write(tmp_path / "slices"), tmp_path / "multi" / "one.dcm", [2, 0, 3, 1])
    (series,) = find_series(path.parent)
    assert (len(series.files), series.slices) == (1, 4)
    volume = read_series(series)
    assert np.array_equal(volume.array, scan().array)
    assert np.allclose(volume.affine, LPS)
    assert volume.steps == ()


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    paths = write(tmp_path / "slices")

    def shift(data: Any) -> None:
        data.PixelData = (data.pixel_array + 24).tobytes()
        data.RescaleIntercept = -1048

    edit(paths[1], shift)
    volume = read_series([merge(paths, tmp_path / "one.dcm")])
    assert np.array_equal(volume.array, scan().array)
    assert volume.steps[0].parameters["slope_intercept"] == [[1.0, -1048.0], [1.0, -1024.0]]


def test_compressed_and_single_frame_enhanced_files_are_read(tmp_path: Path) -> None:
    path = merge(write(tmp_path / "slices"), tmp_path / "one.dcm")
    edit(path, lambda data: data.compress(RLELossless))
    assert np.array_equal(read_series([path]).array, scan().array)
    single = merge(write(tmp_path / "slices")[:1], tmp_path / "single.dcm")
    assert read_series([single]).shape == (*SHAPE[:2], 1)


def test_series_of_several_enhanced_files_is_one_volume(tmp_path: Path) -> None:
    paths = write(tmp_path / "slices")
    parts = [merge(paths[:1], tmp_path / "a.dcm"), merge(paths[1:], tmp_path / "b.dcm")]
    assert np.array_equal(read_series(parts).array, scan().array)


def test_tilted_frames_are_straightened(tmp_path: Path) -> None:
    affine = turned_affine((0.9, 0.8, 5.0), -14.0)
    affine[:3, 2] = (0.0, 0.0, 5.0)
    paths = write(tmp_path / "slices", linear_scan((5, 12, 6), affine, np.int16))
    expected = read_series(paths)
    volume = read_series([merge(paths, tmp_path / "one.dcm")])
    assert volume.steps[-1].parameters["degrees"] == pytest.approx(14.0, abs=1e-3)
    assert np.array_equal(volume.array, expected.array)


def test_missing_frame_gives_the_positions_of_the_gap(tmp_path: Path) -> None:
    path = merge(write(tmp_path / "slices"), tmp_path / "one.dcm", [0, 1, 3])
    assert "10.000 mm from -95.000 to -85.000" in refusal(path).found


@pytest.mark.parametrize(
    ("dropped", "tag"),
    [
        ("PlanePositionSequence", "ImagePositionPatient (0020,0032)"),
        ("PixelValueTransformationSequence", "RescaleIntercept (0028,1052)"),
    ],
)
def test_missing_functional_group_is_named_with_its_frame(tmp_path: Path, dropped: str, tag: str) -> None:
    path = merge(write(tmp_path / "slices"), tmp_path / "one.dcm", drop=(dropped,))
    found = refusal(path)
    assert found.code == "dicom_tag"
    assert f"file 1, frame 1 without a usable {tag}" in found.found


def test_count_of_groups_must_be_that_of_frames(tmp_path: Path) -> None:
    path = merge(write(tmp_path / "slices"), tmp_path / "one.dcm")
    edit(path, lambda data: data.PerFrameFunctionalGroupsSequence.pop())
    found = refusal(path)
    assert found.code == "dicom_frames"
    assert "NumberOfFrames (0028,0008) 4 and 3 items" in found.found


def test_too_few_pixels_for_the_frames_are_refused(tmp_path: Path) -> None:
    path = merge(write(tmp_path / "slices"), tmp_path / "one.dcm")
    edit(path, lambda data: setattr(data, "PixelData", data.PixelData[:-60]))
    assert refusal(path).code == "dicom_pixels"


def test_step_tells_which_series_was_chosen_and_why(tmp_path: Path) -> None:
    paths = write(tmp_path / "ct")
    thin = write(tmp_path / "b", scan().with_array(scan().array + 9), series_uid="1.2.3")[:2]
    other = write(tmp_path / "c", scan().with_array(scan().array + 8), series_uid="1.2.4")
    scouts = write(tmp_path / "d", linear_scan((6, 5, 7), LPS, np.int16), series_uid="1.2.5")
    edit_all(other, lambda data: setattr(data, "Modality", "PT"))
    edit_all(scouts, lambda data: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    edit_all(scouts, lambda data: setattr(data, "SOPInstanceUID", generate_uid()))
    volume = read_series([*paths, *thin, *other, *scouts])
    assert np.array_equal(volume.array, scan().array)
    parameters = volume.steps[0].parameters
    assert parameters["chosen"].items() >= {"modality": "CT", "files": 4, "slices": 4}.items()
    assert parameters["chosen"]["why"] == "most slices of 3 CT series"
    dropped = {(one["modality"], one["files"], one["slices"], one["why"]) for one in parameters["dropped"]}
    assert dropped == {("CT", 2, 2, "fewer slices"), ("PT", 4, 4, "no CT"), ("CT", 7, 0, "localizers only")}


def test_enhanced_file_counts_its_frames_when_a_series_is_chosen(tmp_path: Path) -> None:
    multi = merge(write(tmp_path / "a"), tmp_path / "multi.dcm")
    singles = write(tmp_path / "b", scan().with_array(scan().array + 9), series_uid="1.2.3")[:3]
    assert np.array_equal(read_series([multi, *singles]).array, scan().array)
