"""DICOM labels on disk for tests: structure sets from corner points, segmentations from frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage, generate_uid

from imaging.volume import Volume

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


class Roi(NamedTuple):
    """A region of interest: its name, and corners (n, 3) RAS mm of each contour with its type."""

    name: str
    contours: Sequence[tuple[Any, str]]


class Frame(NamedTuple):
    """One SEG frame: segment number (None for LABELMAP), stored pixels (rows, columns), slice index of the image."""

    segment: int | None
    pixels: NDArray[Any]
    index: int


def _file(path: Path, sop_class: str, modality: str, reference: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = reference.StudyInstanceUID, generate_uid()
    data.PatientID, data.PatientName, data.Modality = reference.PatientID, reference.PatientName, modality
    return data


def write_rtstruct(path: Path, rois: Sequence[Roi], slice_file: Path) -> Path:
    """Write a structure set that refers to the series of `slice_file`."""
    reference = pydicom.dcmread(slice_file, stop_before_pixels=True)
    data = _file(path, RTStructureSetStorage, "RTSTRUCT", reference)
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = reference.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = reference.FrameOfReferenceUID, [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, roi in enumerate(rois, start=1):
        listed, drawn = Dataset(), Dataset()
        listed.ROINumber, listed.ROIName = number, roi.name
        listed.ReferencedFrameOfReferenceUID = reference.FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for corners, kind in roi.contours:
            item = Dataset()
            points = np.asarray(corners, dtype=float) * RAS_TO_LPS
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{value:.6f}"[:16] for value in points.ravel()]
            drawn.ContourSequence.append(item)
        data.StructureSetROISequence.append(listed)
        data.ROIContourSequence.append(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_seg(
    path: Path, kind: str, segments: dict[int, str], frames: Sequence[Frame], image: Volume, slice_file: Path
) -> Path:
    """Write a segmentation on planes of the image's third axis; frames in the order given.

    Pixels are (rows, columns) = (second, first) axis of the image: bool-like for BINARY, else uint8.
    """
    reference = pydicom.dcmread(slice_file, stop_before_pixels=True)
    data = _file(path, SegmentationStorage, "SEG", reference)
    data.FrameOfReferenceUID = reference.FrameOfReferenceUID
    series = Dataset()
    series.SeriesInstanceUID = reference.SeriesInstanceUID
    data.ReferencedSeriesSequence = [series]
    data.SegmentationType = kind
    data.SegmentSequence = []
    for number, label in segments.items():
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel = number, label
        data.SegmentSequence.append(item)
    data.Rows, data.Columns = image.shape[1], image.shape[0]
    data.NumberOfFrames, data.SamplesPerPixel, data.PhotometricInterpretation = len(frames), 1, "MONOCHROME2"
    bits = 1 if kind == "BINARY" else 8
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    if kind == "FRACTIONAL":
        data.MaximumFractionalValue, data.SegmentationFractionalType = 200, "OCCUPANCY"
    spacing = np.array(image.spacing_mm)
    unit = image.affine[:3, :3] / spacing
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _numbers([*(unit[:, 0] * RAS_TO_LPS), *(unit[:, 1] * RAS_TO_LPS)])
    measures.PixelSpacing = _numbers([spacing[1], spacing[0]])
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [_groups(frame, image) for frame in frames]
    stored = np.stack([frame.pixels for frame in frames]).astype(np.uint8)
    packed = np.packbits(stored.ravel(), bitorder="little") if bits == 1 else stored
    data.PixelData = packed.tobytes() + b"\0" * (packed.size % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _groups(frame: Frame, image: Volume) -> Dataset:
    groups, position, identification = Dataset(), Dataset(), Dataset()
    place = image.world_mm(np.array([[0, 0, frame.index]]))[0] * RAS_TO_LPS
    position.ImagePositionPatient = _numbers(place)
    groups.PlanePositionSequence = [position]
    if frame.segment is not None:
        identification.ReferencedSegmentNumber = frame.segment
        groups.SegmentIdentificationSequence = [identification]
    return groups


def _numbers(values: Any) -> list[str]:
    return [f"{float(value):.9f}"[:16] for value in values]
