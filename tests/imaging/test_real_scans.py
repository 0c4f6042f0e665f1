"""Real scans read as their source.json says; skipped where they are absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.bits import pack
from imaging.checks import check_hu, check_label_values, clear_padding, match_grid
from imaging.dicom import find_series, read_series
from imaging.errors import BadInput
from imaging.nifti import read_nifti
from imaging.overlay import overlay_png
from imaging.resample import grid_for, orient_ras, orientation, resample_image, shear_degrees
from imaging.sides import body_midline_x, split_sides

pytestmark = pytest.mark.real_data


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "source.json").read_text())["expected"]
    return found


def test_gantry_tilt_is_repaired(real_data: Path) -> None:
    (series,) = find_series(real_data / "dicom_gantry_tilt")
    volume = read_series(series)
    assert volume.steps[-1].parameters["degrees"] == pytest.approx(14.0, abs=0.01)
    assert shear_degrees(volume.affine) == pytest.approx(0.0, abs=1e-6)
    assert volume.shape == (512, 521, 4)


@pytest.mark.parametrize(
    ("case", "code", "text"),
    [
        ("dicom_missing_slice", "dicom_missing_slice", "10.000 mm from 28.107 to 38.107"),
        ("dicom_same_position", "dicom_same_position", "4 different images"),
    ],
)
def test_series_that_form_no_volume_are_refused(real_data: Path, case: str, code: str, text: str) -> None:
    (series,) = find_series(real_data / case)
    with pytest.raises(BadInput, match=text) as caught:
        read_series(series)
    assert caught.value.code == code


def test_jpeg_2000_series_and_its_flipped_label(real_data: Path) -> None:
    folder = real_data / "totalsegmentator_dicom"
    expected = facts(folder)
    (series,) = find_series(folder)
    image = read_series(series)
    assert list(image.shape) == expected["dicom"]["size_xyz"]
    assert image.spacing_mm == pytest.approx(expected["dicom"]["spacing_mm"])
    lps_origin = image.affine[:3, 3] * (-1, -1, 1)
    assert lps_origin == pytest.approx(expected["dicom"]["origin_lps_mm"])
    assert (image.array.min(), image.array.max()) == (expected["dicom"]["hu_min"], expected["dicom"]["hu_max"])
    check_hu(image, "case")
    stored = read_nifti(folder / "label.nii.gz")
    assert orientation(stored.affine) == "LAS"
    label = check_label_values(match_grid(image, stored, "case"), set(range(1, 118)), "case")
    for value, fact in expected["label.nii.gz"]["labels"].items():
        assert int((label.array == int(value)).sum()) == fact["voxels"]
    median = {name: float(np.median(image.array[label.array == v])) for v, name in ((5, "liver"), (1, "spleen"))}
    assert median == {"liver": 93.0, "spleen": 80.0} == expected["median_hu_after_alignment"]


def test_feet_first_series_with_padding(real_data: Path) -> None:
    folder = real_data / "dcmqi_three_slices"
    volume = read_series(next(s for s in find_series(folder) if s.modality == "CT"))
    assert (volume.array.min(), volume.array.max()) == (-1024, 1381)
    assert volume.spacing_mm == pytest.approx(facts(folder)["dicom"]["spacing_mm"])
    assert volume.affine[:3, 3] * (-1, -1, 1) == pytest.approx(facts(folder)["dicom"]["origin_lps_mm"])
    assert [step.name for step in volume.steps] == ["clear_padding"]


def test_nifti_and_dicom_of_one_scan_agree(real_data: Path) -> None:
    folder = real_data / "ibsi_lung_tumour"
    by_dicom = read_series(next(s for s in find_series(folder) if s.modality == "CT"))
    by_nifti = match_grid(by_dicom, read_nifti(folder / "ct.nii.gz"), "case")
    assert np.array_equal(by_dicom.array, by_nifti.array)
    label = read_nifti(folder / "label.nii.gz")
    centroid = label.world_mm(np.argwhere(label.array == 1)).mean(axis=0)
    assert centroid == pytest.approx(facts(folder)["label.nii.gz"]["labels"]["1"]["centroid_world_ras_mm"], abs=0.01)


def test_kidneys_and_back_muscles_fall_on_their_sides(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "totalsegmentator_example"
    image = clear_padding(read_nifti(folder / "ct.nii.gz"))
    label = match_grid(image, read_nifti(folder / "label_fast.nii.gz"), "case")
    check_hu(image, "case")
    midline = body_midline_x(orient_ras(image))
    for right, left in ((2, 3), (87, 86)):
        split = split_sides((label.array == right) | (label.array == left), label.affine, midline)
        for side, value in ((split.right, right), (split.left, left)):
            assert (side & (label.array == value)).sum() >= 0.98 * (label.array == value).sum()
    masks = np.stack([label.array == value for value in (5, 1, 2, 3)])
    classes = {0: ("liver", "red"), 1: ("spleen", "blue"), 2: ("right kidney", "lime"), 3: ("left kidney", "cyan")}
    assert overlay_png(image, pack(masks), classes, tmp_path / "o.png", "example").stat().st_size > 20_000


def test_five_millimetre_scan_reaches_the_lake_grid(real_data: Path) -> None:
    image = clear_padding(read_nifti(real_data / "crlm_ct_1004_unlabelled" / "ct.nii.gz"))
    grid = grid_for(image, (3.0, 3.0, 3.0))
    moved = resample_image(image, grid)
    # round(511 * 0.796875 / 3) + 1 = 137, round(40 * 5 / 3) + 1 = 68
    assert moved.shape == (137, 137, 68)
    assert orientation(moved.affine) == "RAS"
    assert float(moved.array.mean()) == pytest.approx(float(image.array.mean()), abs=5)


@pytest.mark.parametrize("case", ["kits_case_00023", "kits_case_00038", "kits_case_00160"])
def test_kits_labels_hold_the_voxels_their_facts_say(real_data: Path, case: str) -> None:
    label = read_nifti(real_data / case / "kits19_label.nii.gz")
    expected = facts(real_data / case)["kits19_label.nii.gz"]
    assert list(label.shape) == expected["shape"]
    assert orientation(label.affine) == expected["orientation"]
    for value, fact in expected["labels"].items():
        assert int((label.array == int(value)).sum()) == fact["voxels"]
