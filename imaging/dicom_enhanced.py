"""Enhanced (multi-frame) CT: the frames of one file as slices, each with its own position, orientation and rescale."""

from __future__ import annotations

from typing import Any

import pydicom
from pydicom.dataset import Dataset

from imaging.dicom_header import PARSE_ERRORS, SliceHeader, open_quietly
from imaging.errors import BadInput

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
PLACES = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "ImageType": "CTImageFrameTypeSequence",
}
"""Tag of a single-frame slice -> the functional group that holds it (DICOM PS3.3 C.7.6.16.2, C.8.15.3); ImageType of a
frame is called FrameType there."""


def split_frames(header: SliceHeader, where: str) -> list[SliceHeader]:
    """Return one header for each frame of an enhanced CT file; a file of one plain slice is returned as it is.

    A frame's own functional group goes before the shared one. Raises BadInput for several frames without functional
    groups, which have no place in space, and for another count of groups than of frames.
    """
    if not header.is_enhanced and header.frame_count == 1:
        return [header]
    shared, own = functional_groups(header, where)
    if len(own) != header.frame_count:
        raise BadInput(
            "dicom_frames",
            f"{where}, {header.name}",
            f"NumberOfFrames (0028,0008) {header.frame_count} and {len(own)} items of "
            "PerFrameFunctionalGroupsSequence (5200,9230)",
            "an enhanced CT with one item for each frame, or one slice per file",
            "export the series again as CT Image Storage or Enhanced CT Image Storage",
        )
    decoded: dict[str, Any] = {}
    return [
        SliceHeader(
            header.path, header.ordinal, header.study_uid, header.series_uid, header.patient_key, header.modality,
            _frame_fields(header, shared, groups), frame=index, decoded=decoded,
        )
        for index, groups in enumerate(own)
    ]  # fmt: skip


def functional_groups(header: SliceHeader, where: str) -> tuple[Dataset, list[Dataset]]:
    """Return the shared functional groups of a multi-frame file and those of each frame; both may be empty."""
    try:
        with open_quietly(header.path) as file:
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(GROUPS))
            shared, own = (list(data.get(keyword) or []) for keyword in GROUPS)
    except PARSE_ERRORS as error:
        raise BadInput(
            "dicom_unreadable", f"{where}, {header.name}",
            f"functional groups that do not parse ({error.__class__.__name__})", "a whole DICOM file",
            "fetch or export the series again",
        ) from error  # fmt: skip
    return (shared[0] if shared else Dataset()), own


def group_value(keyword: str, sequence: str, own: Dataset, shared: Dataset) -> Any:
    """Return a tag of a functional group, of the frame itself before the shared one; None where neither has it."""
    for groups in (own, shared):
        items = groups.get(sequence)
        if items and items[0].get(keyword) not in (None, ""):
            return items[0].get(keyword)
    return None


def _frame_fields(header: SliceHeader, shared: Dataset, own: Dataset) -> Dataset:
    fields = Dataset()
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID", "LossyImageCompression", "ImageType"):
        if keyword in header.fields:
            setattr(fields, keyword, header.fields.get(keyword))
    for keyword, sequence in PLACES.items():
        value = group_value("FrameType" if keyword == "ImageType" else keyword, sequence, own, shared)
        if value is not None:
            setattr(fields, keyword, value)
    return fields
