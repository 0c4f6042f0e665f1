"""DICOM-SEG and RTSTRUCT that we write: read back by highdicom and by our readers, and tied to their series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_samples import LPS, SHAPE, edit_all, merge, write
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import linear_scan
from numpy.typing import NDArray

from imaging.bits import empty_bits, set_channel
from imaging.dicom import read_series
from imaging.dicom_refs import read_references
from imaging.dicom_seg import place_segment, read_segmentation
from imaging.dicom_seg_write import CodedConcept, SegmentName, write_segmentation
from imaging.dicom_source import SourceSeries, open_source
from imaging.errors import BadInput
from imaging.polygons import fill_polygons
from imaging.rtstruct import rasterise, read_structures
from imaging.rtstruct_write import outlines, write_structures
from imaging.volume import Volume

ANATOMY = CodedConcept("91723000", "Anatomical Structure")
KIDNEY = SegmentName(
    3, "left kidney", "#f25f5c", ANATOMY, CodedConcept("64033007", "Kidney"), CodedConcept("7771000", "Left")
)
LIVER = SegmentName(6, "liver", "#a44a3f", ANATOMY, CodedConcept("10200004", "Liver"), algorithm=("universal", "4"))
SECRET = {
    "PatientName": "MUSTER^ERIKA",
    "PatientBirthDate": "19700102",
    "AccessionNumber": "ACC777",
    "StudyDate": "20200304",
    "InstitutionName": "St Elsewhere",
    "OtherPatientIDs": "OTHER888",
}


def source_of(folder: Path, *, pseudonym: str | None = "s0123", tilt: float = 0.0) -> tuple[list[Path], SourceSeries]:
    affine = LPS.copy()
    affine[1, 2] = tilt  # mm that a slice is shifted against the last one
    paths = write(folder / "ct", linear_scan(SHAPE, affine, np.int16), header=SECRET)
    return paths, open_source(paths, pseudonym=pseudonym)


def label() -> NDArray[np.uint8]:
    voxels = np.zeros(SHAPE, dtype=np.uint8)
    voxels[1:4, 1:3, 0:3] = 6
    voxels[4:6, 3:5, 2:4] = 3
    return voxels


def bits_of(*masks: NDArray[np.bool_]) -> NDArray[np.uint32]:
    bits = empty_bits(masks[0].shape, 32)
    for channel, mask in enumerate(masks):
        set_channel(bits, channel, mask)
    return bits


@pytest.mark.parametrize("tilt", [0.0, 0.7])
def test_segmentation_is_read_back_by_highdicom_and_by_ours(tmp_path: Path, tilt: float) -> None:
    paths, source = source_of(tmp_path, tilt=tilt)
    assert (source.tilt_degrees > 5) == bool(tilt)
    write_segmentation(tmp_path / "seg.dcm", label(), [KIDNEY, LIVER], source, software_version="1.0")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.SegmentationType == "LABELMAP"
    read = seg.get_pixels_by_source_instance(
        [pydicom.dcmread(path).SOPInstanceUID for path in paths], combine_segments=True
    )
    assert np.array_equal(read.transpose(2, 1, 0), label())
    sheared = Volume(np.zeros(SHAPE), source.grid.affine)
    placed = {s.meaning: place_segment(s, sheared, "x").array for s in read_segmentation(tmp_path / "seg.dcm")}
    assert set(placed) == {"Left Kidney", "Liver"}
    assert np.array_equal(placed["Left Kidney"], label() == 3)
    assert np.array_equal(placed["Liver"], label() == 6)


def test_segmentation_names_frame_series_and_every_slice_of_its_source(tmp_path: Path) -> None:
    paths, source = source_of(tmp_path)
    write_segmentation(tmp_path / "seg.dcm", label(), [KIDNEY, LIVER], source, software_version="1.0")
    seg, first = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(paths[0])
    assert seg.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert seg.StudyInstanceUID == first.StudyInstanceUID
    assert seg.SeriesInstanceUID != first.SeriesInstanceUID
    assert read_references(tmp_path / "seg.dcm", "seg").series_uids == {str(first.SeriesInstanceUID)}
    by_uid = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path) for path in paths}
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == list(first.PixelSpacing)
    for groups in seg.PerFrameFunctionalGroupsSequence:
        derived = groups.DerivationImageSequence[0].SourceImageSequence[0]
        slice_ = by_uid[derived.ReferencedSOPInstanceUID]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == slice_.ImagePositionPatient
    (kidney,) = [item for item in seg.SegmentSequence if item.SegmentNumber == 3]
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_no_identity_is_written_unless_it_is_kept(tmp_path: Path, kind: str) -> None:
    def bytes_with(pseudonym: str | None) -> bytes:
        _, source = source_of(tmp_path / str(pseudonym), pseudonym=pseudonym)
        path = tmp_path / f"{pseudonym}.dcm"
        if kind == "seg":
            write_segmentation(path, label(), [KIDNEY, LIVER], source, software_version="1.0")
        else:
            write_structures(path, bits_of(label() == 6), [(0, LIVER)], source, software_version="1.0")
        return path.read_bytes()

    without, kept = bytes_with("s0123"), bytes_with(None)
    told = ("MUSTER", "19700102", "ACC777", "20200304", "Elsewhere", "OTHER888", "4711")
    assert [text for text in told if text.encode() in without] == []
    assert b"s0123" in without
    assert all(text.encode() in kept for text in ("MUSTER", "19700102", "ACC777", "20200304", "4711"))
    assert b"Elsewhere" not in kept  # neither of the patient nor of the study


def test_same_input_gives_the_same_uids_and_another_mask_others(tmp_path: Path) -> None:
    _, source = source_of(tmp_path)
    uids = []
    for number, voxels in enumerate((label(), label(), np.where(label() == 6, 0, label()))):
        write_segmentation(tmp_path / f"{number}.dcm", voxels, [KIDNEY, LIVER], source, software_version="1.0")
        uids.append(str(pydicom.dcmread(tmp_path / f"{number}.dcm").SOPInstanceUID))
    assert uids[0] == uids[1] != uids[2]


def test_label_of_another_grid_or_value_is_refused(tmp_path: Path) -> None:
    _, source = source_of(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(6, 5, 3\).*resample"):
        write_segmentation(tmp_path / "a.dcm", label()[:, :, :3], [LIVER, KIDNEY], source, software_version="1.0")
    with pytest.raises(ValueError, match=r"values \[3\] without a segment"):
        write_segmentation(tmp_path / "a.dcm", label(), [LIVER], source, software_version="1.0")


def test_series_without_a_frame_of_reference_is_refused(tmp_path: Path) -> None:
    paths, _ = source_of(tmp_path)
    edit_all(paths, lambda data: delattr(data, "FrameOfReferenceUID"))
    with pytest.raises(BadInput, match="a slice without FrameOfReferenceUID"):
        open_source(paths, pseudonym="x")


@pytest.mark.parametrize("tilt", [0.0, 0.7])
def test_structures_are_read_back_and_tied_to_their_slices(tmp_path: Path, tilt: float) -> None:
    paths, source = source_of(tmp_path, tilt=tilt)
    masks = [label() == 6, label() == 3, np.zeros(SHAPE, dtype=bool)]
    names = [LIVER, KIDNEY, SegmentName(1, "spleen", "#9b5de5", ANATOMY, CodedConcept("78961009", "Spleen"))]
    path = tmp_path / "rt.dcm"
    write_structures(path, bits_of(*masks), list(enumerate(names)), source, software_version="1.0")
    sheared = Volume(np.zeros(SHAPE), source.grid.affine)
    structures = read_structures(path)
    assert [structure.number for structure in structures] == [6, 3, 1]
    for structure, mask in zip(structures, masks, strict=True):
        placed = rasterise(structure, sheared, "x", image_frame_uid=source.frame_uid)
        assert np.array_equal(placed.array, mask)
    data, first = pydicom.dcmread(path), pydicom.dcmread(paths[0])
    assert read_references(path, "rt").series_uids == {str(first.SeriesInstanceUID)}
    contour = data.ROIContourSequence[1].ContourSequence[0]  # the kidney's lowest, on slice 2
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(paths[2]).SOPInstanceUID
    assert float(contour.ContourData[2]) == pytest.approx(-90.0)


def test_contour_longer_than_64_kib_is_written(tmp_path: Path) -> None:
    shape = (120, 110, 2)
    paths = write(tmp_path / "ct", linear_scan(shape, LPS, np.int16))
    source = open_source(paths, pseudonym="s1")
    sponge = np.random.default_rng(4).random(shape) < 0.8
    write_structures(tmp_path / "rt.dcm", bits_of(sponge), [(0, LIVER)], source, software_version="1.0")
    contours = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence
    assert max(sum(len(str(value)) + 1 for value in contour.ContourData) for contour in contours) > 2**16
    assert {contour["ContourData"].VR for contour in contours} == {"DS"}
    image = Volume(np.zeros(shape), source.grid.affine)
    assert np.array_equal(rasterise(read_structures(tmp_path / "rt.dcm")[0], image, "x").array, sponge)


def test_ring_becomes_one_contour_with_a_keyhole() -> None:
    ring = np.zeros((9, 8), dtype=bool)
    ring[1:8, 1:7] = True
    ring[3:5, 3:5] = False
    (contour,) = outlines(ring)
    assert np.array_equal(fill_polygons([contour], ring.shape), ring)
    square = np.zeros((4, 4), dtype=bool)
    square[1:3, 1:3] = True
    # a corner of a mask is cut half-way between centres, so a square has eight corners
    assert len(outlines(square)[0]) == 8


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.95))
def test_outlines_of_any_mask_fill_to_the_mask(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((13, 11)) < share
    assert np.array_equal(fill_polygons(outlines(mask), mask.shape), mask)


def test_enhanced_series_is_referred_to_by_frame(tmp_path: Path) -> None:
    order = [2, 0, 3, 1]
    path = merge(write(tmp_path / "slices"), tmp_path / "multi" / "one.dcm", order)
    source = open_source([path], pseudonym="s0123")
    image = read_series([path])
    voxels: Any = np.zeros(source.grid.shape, dtype=np.uint8)
    voxels[1:3, 1:3, 1] = 6
    write_segmentation(tmp_path / "seg.dcm", voxels, [LIVER], source, software_version="1.0")
    (segment,) = read_segmentation(tmp_path / "seg.dcm")
    assert np.array_equal(place_segment(segment, image, "x").array, voxels == 6)
    write_structures(tmp_path / "rt.dcm", bits_of(voxels == 6), [(0, LIVER)], source, software_version="1.0")
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    contour = data.ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourImageSequence[0].ReferencedFrameNumber == order.index(1) + 1
    assert np.array_equal(rasterise(read_structures(tmp_path / "rt.dcm")[0], image, "x").array, voxels == 6)
