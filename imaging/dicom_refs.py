"""Which scan a DICOM label (SEG, RTSTRUCT) was drawn on: the series and the frame of reference it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom

from imaging.dicom_header import PARSE_ERRORS, open_quietly
from imaging.errors import BadInput

KINDS = ("SEG", "RTSTRUCT")


@dataclass(frozen=True)
class References:
    """kind: SEG or RTSTRUCT. series_uids, frame_uids: what the label refers to; they stay out of the text form."""

    kind: str
    series_uids: frozenset[str] = field(repr=False)
    frame_uids: frozenset[str] = field(repr=False)


def read_references(path: Path, where: str) -> References:
    """Return what a label refers to; BadInput when the file cannot be parsed or is no DICOM label."""
    with open_label(path, where) as data:
        kind = str(data.get("Modality") or "")
        if kind not in KINDS:
            raise BadInput("dicom_modality", where, f"Modality (0008,0060) {kind or '(empty)'}", " or ".join(KINDS),
                           "give a DICOM segmentation or a structure set")  # fmt: skip
        series = {str(item.get("SeriesInstanceUID") or "") for item in data.get("ReferencedSeriesSequence") or []}
        frames = {str(data.get("FrameOfReferenceUID") or "")}
        for frame in data.get("ReferencedFrameOfReferenceSequence") or []:
            frames.add(str(frame.get("FrameOfReferenceUID") or ""))
            for study in frame.get("RTReferencedStudySequence") or []:
                for item in study.get("RTReferencedSeriesSequence") or []:
                    series.add(str(item.get("SeriesInstanceUID") or ""))
    return References(kind, frozenset(series - {""}), frozenset(frames - {""}))


@contextmanager
def open_label(path: Path, where: str, *, pixels: bool = False) -> Iterator[Any]:
    """Open a DICOM label file as a pydicom data set; what cannot be parsed inside becomes a BadInput naming `where`."""
    try:
        with open_quietly(path) as file:
            yield pydicom.dcmread(file, stop_before_pixels=not pixels)
    except (BadInput, FileNotFoundError):
        raise
    except PARSE_ERRORS as error:
        raise BadInput(
            "dicom_unreadable", where, f"a file that does not parse ({error.__class__.__name__})",
            "a whole DICOM label (SEG or RTSTRUCT)", "fetch or export the label again",
        ) from error  # fmt: skip


def check_frame(label_frame: str, image_frame: str | None, where: str) -> None:
    """Raise BadInput where label and image name different frames of reference, so that their mm do not compare.

    Nothing is checked where either names none: then only the shift of the planes tells.
    """
    if label_frame and image_frame and label_frame != image_frame:
        raise BadInput(
            "frame_of_reference",
            where,
            "a label in another frame of reference than the image's, by FrameOfReferenceUID (0020,0052)",
            "one frame of reference",
            "use the label drawn on this series, or register and resample it first",
        )
