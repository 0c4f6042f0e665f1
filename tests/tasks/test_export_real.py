"""Real scans: exports open in nibabel, SimpleITK and highdicom, and DICOM labels fit their source series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from catalog.keys import content_sha256
from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, empty_bits, set_channel
from imaging.dicom import find_series, read_series
from imaging.dicom_refs import read_references
from imaging.dicom_seg import read_segmentation
from imaging.dicom_series import LPS_TO_RAS
from imaging.dicom_source import open_source
from imaging.errors import BadInput
from imaging.nifti import read_nifti
from imaging.resample import grid_for, orient_ras, resample_image
from imaging.rtstruct import read_structures
from imaging.volume import Volume
from tasks.export import export_case

CLASSES = ("liver", "liver_tumor", "spleen")
NIFTI = ("crlm_ct_1004_unlabelled", "totalsegmentator_example", "ibsi_lung_tumour")
DICOM = {
    "totalsegmentator_dicom": "dicom",
    "ibsi_lung_tumour": "dicom/image",
    "dcmqi_three_slices": ".",
    "dicom_gantry_tilt": "dicom",
}


def case_of(raw: Volume) -> tuple[dict[str, Any], Bits, Volume]:
    """Return a case whose masks follow the scan: tissue left and right of its middle, and the brightest of it."""
    upright = orient_ras(raw)
    grid = grid_for(raw, (3.0, 3.0, 3.0))
    image = resample_image(raw, grid)
    smooth = gaussian_filter(image.array.astype(np.float32), 1.5)  # organs have no holes of one voxel
    tissue = smooth > np.percentile(smooth, 60)
    middle = grid.shape[0] // 2
    right, left = tissue.copy(), tissue.copy()
    right[:middle], left[middle:] = False, False
    bits = empty_bits(grid.shape, 32)
    for name, mask in zip(CLASSES, (right, right & (smooth > np.percentile(smooth, 85)), left), strict=True):
        set_channel(bits, class_info(name).channel, mask)
    case = {
        "case_id": "real/s1",
        "native_id": "s1",
        "affine": grid.affine.ravel().tolist(),
        "original_shape": list(raw.shape),
        "original_affine": raw.affine.ravel().tolist(),
        "content_sha256": content_sha256(upright.array, upright.affine),
        "licence": None,
        "non_commercial": None,
    }
    return case, bits, image


@pytest.mark.parametrize("name", NIFTI)
def test_exports_of_real_files_open_and_lie_on_the_scan(real_data: Path, tmp_path: Path, name: str) -> None:
    source = real_data / name / "ct.nii.gz"
    if not source.is_file():
        pytest.skip(f"no {name}/ct.nii.gz in {real_data}")
    case, bits, image = case_of(read_nifti(source))
    export_case(case, bits, CLASSES, tmp_path, {}, image=image, source_series=source,
                formats=("nifti", "seg_nrrd", "abdomenatlas"))  # fmt: skip
    scan = nibabel.load(source)
    folder = tmp_path / "s1"
    for path in (folder / "segmentation.nii.gz", folder / "segmentations" / "liver.nii.gz", folder / "ct.nii.gz"):
        read = nibabel.load(path)
        assert read.shape == scan.shape[:3]
        assert np.allclose(read.affine, scan.affine, atol=1e-3)
        image_itk = sitk.ReadImage(str(path))
        assert image_itk.GetSize() == scan.shape[:3]
    assert np.array_equal(np.asarray(nibabel.load(folder / "ct.nii.gz").dataobj), np.asarray(scan.dataobj).squeeze())
    label = np.asarray(nibabel.load(folder / "segmentation.nii.gz").dataobj)
    right_of_left = [(np.argwhere(label == value).mean(axis=0) @ scan.affine[:3, :3].T)[0] for value in (6, 1)]
    assert right_of_left[0] > right_of_left[1]  # the liver's x in RAS lies further to the right
    assert sitk.ReadImage(str(folder / "segmentation.seg.nrrd")).GetSize()[:3] == scan.shape[:3]


def with_uids(folder: Path, target: Path) -> Path:
    """Return a copy of the CT slices of a folder, in which UIDs that an anonymiser emptied are filled in."""
    target.mkdir()
    (series,) = [one for one in find_series(folder) if one.modality == "CT"]
    for number, path in enumerate(series.files):
        data = pydicom.dcmread(path)
        data.SOPClassUID = data.get("SOPClassUID") or data.file_meta.MediaStorageSOPClassUID
        data.SOPInstanceUID = data.get("SOPInstanceUID") or data.file_meta.MediaStorageSOPInstanceUID
        for end, keyword in enumerate(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"), start=1):
            if not data.get(keyword):
                setattr(data, keyword, f"1.2.826.0.1.3680043.8.498.{end}")
        data.save_as(target / f"{number}.dcm")
    return target


@pytest.mark.parametrize("name", ["totalsegmentator_dicom", "dicom_gantry_tilt"])
def test_series_whose_uids_were_emptied_are_refused_by_name(real_data: Path, tmp_path: Path, name: str) -> None:
    folder = real_data / name / DICOM[name]
    if not folder.is_dir():
        pytest.skip(f"no {name} in {real_data}")
    case, bits, _ = case_of(read_series(find_series(folder)[0]))
    with pytest.raises(BadInput, match=r"a slice without .*FrameOfReferenceUID|a slice without .*SeriesInstanceUID"):
        export_case(case, bits, CLASSES, tmp_path, {}, formats=("dicom_seg",), source_series=folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", list(DICOM))
def test_dicom_labels_of_real_series_refer_to_them(real_data: Path, tmp_path: Path, name: str) -> None:
    if not (real_data / name / DICOM[name]).is_dir():
        pytest.skip(f"no {name} in {real_data}")
    folder = with_uids(real_data / name / DICOM[name], tmp_path / "source")
    found = [series for series in find_series(folder) if series.modality == "CT"]
    scan = read_series(found[0])
    case, bits, image = case_of(scan)
    export_case(case, bits, CLASSES, tmp_path, {"model": "models:/universal/1"}, image=image,
                formats=("dicom_seg", "rtstruct", "nifti"), source_series=folder)  # fmt: skip
    told = json.loads((tmp_path / "s1" / "segmentation.json").read_text())
    assert ("gantry_tilt_degrees" in told) == (name == "dicom_gantry_tilt")
    assert len(told["dicom_seg_label_maps"]) == 2
    slices = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, found[0].files)}
    source = open_source(found[0], pseudonym="s1")
    for file in told["dicom_seg_label_maps"]:
        path = tmp_path / "s1" / file
        seg = highdicom.seg.segread(path)
        assert seg.FrameOfReferenceUID == found[0].frame_uid
        assert read_references(path, file).series_uids == {found[0].series_uid}
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        first = next(iter(slices.values()))
        assert np.allclose(np.array(measures.PixelSpacing, float), np.array(first.PixelSpacing, float))
        for groups in seg.PerFrameFunctionalGroupsSequence:
            uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            assert np.allclose(
                np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float),
                np.array(slices[uid].ImagePositionPatient, float),
            )
        assert read_segmentation(path)
    structures = read_structures(tmp_path / "s1" / "structures.dcm")
    assert {structure.frame_uid for structure in structures} == {found[0].frame_uid}
    heights = {round(float(p), 2) for s in structures for c in s.contours for p in c[:1, 2]}
    corners = [np.array(h.ImagePositionPatient, float) * LPS_TO_RAS for h in slices.values()]
    if name != "dicom_gantry_tilt":
        assert heights <= {round(float(corner[2]), 2) for corner in corners}
    assert source.grid.shape[2] <= len(slices)
    for file in (file for file in told["files"] if file.endswith(".dcm")):
        texts = {str(item.value) for item in pydicom.dcmread(tmp_path / "s1" / file).iterall() if item.VR != "SQ"}
        for keyword in (
            "PatientName",
            "PatientID",
            "AccessionNumber",
            "InstitutionName",
            "PatientBirthDate",
            "StudyID",
        ):
            value = str(first.get(keyword) or "")
            assert len(value) < 3 or value not in texts, keyword
