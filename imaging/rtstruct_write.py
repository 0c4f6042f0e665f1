"""DICOM structure sets from masks: closed contours on the slices of a CT series, holes joined by keyholes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from skimage.measure import find_contours, points_in_poly

from imaging.bits import Bits, get_channel
from imaging.dicom_seg_write import SegmentName
from imaging.dicom_series import LPS_TO_RAS
from imaging.dicom_source import EMPTIED, SourceSeries

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management (retired), which RTReferencedStudySequence still names (PS3.3 C.8.8.5)."""
Contour = NDArray[np.float64]
PATIENT_TAGS = ("PatientID", "PatientName", *EMPTIED, "StudyDescription", "SpecificCharacterSet")


def write_structures(
    path: Path,
    bits: Bits,
    structures: Sequence[tuple[int, SegmentName]],
    source: SourceSeries,
    *,
    software_version: str,
    description: str = "",
) -> None:
    """Write masks as a DICOM RTSTRUCT that refers to `source`, whose study it joins.

    bits: (W, X, Y, Z) on `source.grid`. structures: channel and name of each region of interest.
    Contours run half-way between the centres inside and outside, so that filling them by centres gives the mask back.
    A hole is joined to its outline by a keyhole (PS3.3 C.8.8.6.3). An empty mask is a structure without contours.
    The same input gives the same UIDs. Raises ValueError for bits on another grid.
    """
    if bits.shape[1:] != source.grid.shape:
        raise ValueError(f"masks of shape {bits.shape[1:]} for a series of shape {source.grid.shape}: resample first")
    digest = hashlib.sha256()
    data = _dataset(source, description, software_version, [name.algorithm for _, name in structures])
    data.StructureSetROISequence, data.ROIContourSequence = Items(), Items()
    data.RTROIObservationsSequence = Items()
    slices = source.slices()
    for channel, name in structures:
        mask = get_channel(bits, channel)
        digest.update(np.packbits(mask).tobytes() + repr(name).encode())
        _add_structure(data, name, _contours_of(mask, source, slices), source.frame_uid)
    uid = str(generate_uid(entropy_srcs=[str(data.SeriesInstanceUID), digest.hexdigest()]))
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
    data.save_as(path, enforce_file_format=True)


def outlines(mask: NDArray[np.bool_]) -> list[Contour]:
    """Return closed polygons (n, 2) in pixels around a mask (A, B), each hole joined to the outline around it.

    A mask touching the array's edge is closed half a pixel beyond it. Corners on straight lines are left out.
    """
    found = [_closed(c) - 1.0 for c in find_contours(np.pad(mask, 1).astype(np.uint8), 0.5, fully_connected="high")]
    areas = [_area(c) for c in found]
    # find_contours keeps high values on one side, so outlines and holes run in opposite directions
    outer_sign = np.sign(areas[int(np.argmax(np.abs(areas)))]) if found else 1.0
    outer = [c for c, area in zip(found, areas, strict=True) if np.sign(area) == outer_sign]
    holes = [c for c, area in zip(found, areas, strict=True) if np.sign(area) != outer_sign]
    sizes = np.array([abs(_area(contour)) for contour in outer])
    low, high = (np.array([edge(contour, axis=0) for contour in outer]) for edge in (np.min, np.max))
    plain = list(outer)
    for hole in holes:
        around = np.flatnonzero(((low < hole[0]) & (high > hole[0])).all(axis=1))
        # the smallest outline around a hole is its own
        order = around[np.argsort(sizes[around])]
        index = next(int(i) for i in order if points_in_poly(hole[:1], plain[i])[0])
        outer[index] = _keyhole(outer[index], hole)
    return outer


def _closed(contour: Contour) -> Contour:
    """Return a contour without its repeated last corner and without corners on straight lines."""
    corners = contour[:-1]
    before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    kept: Contour = corners[turns]
    return kept


def _area(contour: Contour) -> float:
    x, y = contour.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _keyhole(outer: Contour, hole: Contour) -> Contour:
    """Return one polygon that runs around `outer`, straight to `hole` from the corner nearest to it, around and back.

    The way there and back encloses nothing, whatever it crosses.
    """
    j = int(np.argmax(hole[:, 0]))
    i = int(np.argmin(np.linalg.norm(outer - hole[j], axis=1)))
    joined: Contour = np.concatenate([outer[: i + 1], hole[j:], hole[: j + 1], outer[i:]])
    return joined


def _contours_of(
    mask: NDArray[np.bool_], source: SourceSeries, slices: list[tuple[Dataset, int | None]]
) -> list[Dataset]:
    """Return the ContourSequence items of one mask, each with the slice it lies on."""
    items = []
    affine = source.grid.affine
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        header, frame = slices[int(k)]
        for contour in outlines(mask[:, :, k]):
            index = np.column_stack([contour, np.full(len(contour), float(k))])
            points = (index @ affine[:3, :3].T + affine[:3, 3]) * LPS_TO_RAS
            item, image = Dataset(), Dataset()
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
            if frame is not None:
                image.ReferencedFrameNumber = frame + 1
            item.ContourImageSequence = Items([image])
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [f"{value + 0.0:.6f}"[:16] for value in points.ravel()]
            items.append(item)
    return items


def _add_structure(data: Dataset, name: SegmentName, contours: list[Dataset], frame_uid: str) -> None:
    roi, drawn, observed = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = name.number, name.label[:64]
    roi.ReferencedFrameOfReferenceUID = frame_uid
    roi.ROIGenerationAlgorithm = "MANUAL" if name.algorithm is None else "AUTOMATIC"
    if name.algorithm is not None:
        roi.ROIGenerationDescription = " ".join(name.algorithm)[:64]
    digits = name.colour.lstrip("#")
    drawn.ReferencedROINumber = name.number
    drawn.ROIDisplayColor = [int(digits[start : start + 2], 16) for start in (0, 2, 4)]
    if contours:
        drawn.ContourSequence = Items(contours)
    observed.ObservationNumber, observed.ReferencedROINumber = name.number, name.number
    observed.RTROIInterpretedType, observed.ROIInterpreter = "", ""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = name.type.value, name.type.scheme
    code.CodeMeaning = name.type.meaning
    observed.RTROIIdentificationCodeSequence = Items([code])
    data.StructureSetROISequence.append(roi)
    data.ROIContourSequence.append(drawn)
    data.RTROIObservationsSequence.append(observed)


def _dataset(
    source: SourceSeries, description: str, software_version: str, algorithms: list[tuple[str, str] | None]
) -> FileDataset:
    first = source.headers[0]
    meta = FileMetaDataset()
    # explicit lengths of decimal text end at 64 KiB, which a long contour exceeds
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, ImplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in PATIENT_TAGS:
        if keyword in first:
            setattr(data, keyword, first[keyword].value)
    data.SOPClassUID, data.Modality = RTStructureSetStorage, "RTSTRUCT"
    data.StudyInstanceUID, data.FrameOfReferenceUID = first.StudyInstanceUID, source.frame_uid
    data.PositionReferenceIndicator = first.get("PositionReferenceIndicator") or ""
    of_series = [str(first.SeriesInstanceUID), "RTSTRUCT", repr(algorithms)]
    data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = generate_uid(entropy_srcs=of_series), 901, 1
    data.Manufacturer, data.ManufacturerModelName = "CT label factory", "ctfactory"
    data.SoftwareVersions, data.OperatorsName = software_version, ""
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "SEGMENTATION", "", ""
    if description:
        data.SeriesDescription = description[:64]
    data.ApprovalStatus = "UNAPPROVED"
    data.ReferencedFrameOfReferenceSequence = Items([_referenced(source)])
    return data


def _referenced(source: SourceSeries) -> Dataset:
    first = source.headers[0]
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = source.frame_uid
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, first.StudyInstanceUID
    series.SeriesInstanceUID = first.SeriesInstanceUID
    images = []
    for header in source.headers:
        image: Any = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        images.append(image)
    series.ContourImageSequence = Items(images)
    study.RTReferencedSeriesSequence = Items([series])
    frame.RTReferencedStudySequence = Items([study])
    return frame
