"""Real labels of several formats agree voxel by voxel; skipped where the real scans are absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.checks import match_grid
from imaging.dicom import find_series, read_series
from imaging.dicom_refs import read_references
from imaging.dicom_seg import place_segment, read_segmentation
from imaging.nifti import read_nifti
from imaging.nrrd import read_nrrd
from imaging.rtstruct import rasterise, read_structures
from imaging.volume import Volume

pytestmark = pytest.mark.real_data


def series_of(folder: Path) -> tuple[Volume, str, str]:
    (series,) = [one for one in find_series(folder) if one.modality == "CT"]
    return read_series(series), series.series_uid, series.frame_uid


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_structure_set_of_a_lung_tumour_is_its_nifti_label(real_data: Path) -> None:
    folder = real_data / "ibsi_lung_tumour"
    if not folder.is_dir():
        pytest.skip("ibsi_lung_tumour is absent")
    image, series_uid, frame_uid = series_of(folder / "dicom")
    (path,) = (folder / "dicom" / "rtstruct").iterdir()
    assert series_uid in read_references(path, "case").series_uids
    (tumour,) = read_structures(path)
    mask = rasterise(tumour, image, "case", image_frame_uid=frame_uid)
    label = match_grid(image, read_nifti(folder / "label.nii.gz"), "case").array == 1
    assert int(mask.array.sum()) == 125256
    assert dice(mask.array, label) == 1.0
    assert mask.steps == ()


def test_segmentation_and_nrrd_of_one_liver_agree(real_data: Path) -> None:
    folder = real_data / "dcmqi_three_slices"
    if not folder.is_dir():
        pytest.skip("dcmqi_three_slices is absent")
    image, series_uid, frame_uid = series_of(folder / "dicom")
    references = read_references(folder / "liver.dcm", "case")
    assert (references.kind, series_uid in references.series_uids) == ("SEG", True)
    (liver,) = read_segmentation(folder / "liver.dcm")
    assert (liver.label, liver.meaning) == ("Liver", "Liver")
    mask = place_segment(liver, image, "case", image_frame_uid=frame_uid).array
    for name, value in (("liver_seg.nrrd", 1), ("liver_spine_seg.nrrd", 1)):
        label = match_grid(image, read_nrrd(folder / name), "case").array == value
        assert int(label.sum()) == 107098
        assert dice(mask, label) == 1.0


@pytest.mark.parametrize(("name", "value", "voxels"), [("spine", 2, 12439), ("heart", 3, 41449)])
def test_nrrd_masks_fit_their_series(real_data: Path, name: str, value: int, voxels: int) -> None:
    folder = real_data / "dcmqi_three_slices"
    if not folder.is_dir():
        pytest.skip("dcmqi_three_slices is absent")
    image, _, _ = series_of(folder / "dicom")
    label = match_grid(image, read_nrrd(folder / f"{name}_seg.nrrd"), "case").array == value
    assert int(label.sum()) == voxels
    assert -200 < float(np.median(image.array[label])) < 400
