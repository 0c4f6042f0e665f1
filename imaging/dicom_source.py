"""The series a DICOM label refers to: its slices in order, their grid, and what of their headers may be passed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from imaging.dicom import DicomSeries, series_stack
from imaging.dicom_header import open_quietly
from imaging.errors import BadInput
from imaging.resample import Grid, shear_degrees

REFERENCE_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "Modality",
    "InstanceNumber",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "Rows",
    "Columns",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
)
"""What a label needs of the series it refers to; none of it says who the patient is, but by the UIDs of the series."""
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""Without these nothing can refer to a slice; anonymisers are known to empty them."""
EMPTIED = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Attributes of type 2: a label without the patient's identity holds them empty."""


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A CT series as labels refer to it. Headers and UIDs stay out of its text form.

    headers: data sets without pixels, in the order of `grid`'s third axis; of an enhanced CT the one of its file.
    frames: for each slice, its index among the file's frames; None for a file of one slice.
    grid: (columns, rows, slices towards superior) in RAS mm; sheared where the gantry was tilted.
    """

    headers: tuple[Dataset, ...] = field(repr=False)
    frames: tuple[int, ...] | None
    grid: Grid

    @property
    def tilt_degrees(self) -> float:
        """How far the slices lean, 0 for an upright gantry."""
        return shear_degrees(self.grid.affine)

    @property
    def frame_uid(self) -> str:
        """The frame of reference that all slices share."""
        return str(self.headers[0].FrameOfReferenceUID)

    def slices(self) -> list[tuple[Dataset, int | None]]:
        """Return header and frame index of every slice, in the order of the grid's third axis."""
        if self.frames is None:
            return [(header, None) for header in self.headers]
        return [(self.headers[0], frame) for frame in self.frames]


def open_source(series: DicomSeries | Sequence[Path], *, pseudonym: str | None) -> SourceSeries:
    """Return a series to which labels can refer.

    pseudonym: what the patient is called in them, with every other attribute about patient and study left empty; None
    keeps patient and study as the series has them, which a PACS needs to file a label with its scan.
    Raises BadInput for a series that `read_series` refuses, one without the UIDs to refer to (`NEEDED`), and one whose
    slices lie in several multi-frame files.
    """
    stack, where = series_stack(series)
    paths = list(dict.fromkeys(header.path for header in stack.slices))
    frames = tuple(header.frame for header in stack.slices if header.frame is not None)
    if frames and len(paths) > 1:
        raise BadInput("dicom_frames", where, f"slices in {len(paths)} multi-frame files", "one multi-frame file, or "
                       "one slice per file", "write .seg.nrrd or NIfTI instead")  # fmt: skip
    headers = tuple(_header(path, pseudonym) for path in paths)
    for header in headers:
        missing = [name for name in NEEDED if not header.get(name)]
        if missing:
            raise BadInput("dicom_reference", where, f"a slice without {', '.join(missing)}", "the UIDs that a label "
                           "refers to", "use the series as the scanner or PACS has it, or write .seg.nrrd or NIfTI, "
                           "which refer to none")  # fmt: skip
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if len(values := {str(header[name].value) for header in headers}) > 1:
            raise BadInput("dicom_reference", where, f"{len(values)} values of {name}", "one for all slices",
                           "write .seg.nrrd or NIfTI instead")  # fmt: skip
    first = stack.slices[0].fields
    grid = Grid((int(first.Columns), int(first.Rows), len(stack.slices)), stack.affine)
    for header in headers if not frames else ():
        if not header.get("SliceThickness"):  # a label must state one; the distance of the slices is the nearest to it
            header.SliceThickness = round(grid.spacing_mm[2], 4)
    return SourceSeries(headers, frames or None, grid)


def _header(path: Path, pseudonym: str | None) -> Dataset:
    with open_quietly(path) as file:
        tags: list[Any] | None = None if pseudonym is None else list(REFERENCE_TAGS)
        read = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
    header = Dataset()
    header.update({element.tag: element for element in read if not element.tag.is_private})
    if pseudonym is not None:
        header.pop("SpecificCharacterSet", None)
        header.PatientID, header.PatientName = pseudonym, f"{pseudonym}^"
    for keyword in (*EMPTIED, "PatientID", "PatientName"):
        if keyword not in header:
            setattr(header, keyword, "")
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in header.get(keyword) or [] if pseudonym is not None else []:
            _keep_geometry(groups)
    header.file_meta = read.file_meta
    return header


def _keep_geometry(groups: Dataset) -> None:
    kept = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "FrameContentSequence")
    for element in list(groups):
        if element.keyword not in kept:
            del groups[element.tag]


def frame_order(source: SourceSeries, planes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return planes (slices, rows, columns) in the order of a multi-frame file's own frames, empty ones for the rest.

    Of files of one slice each they come back as they are.
    """
    if source.frames is None:
        return planes
    frames = np.zeros((int(source.headers[0].NumberOfFrames), *planes.shape[1:]), dtype=planes.dtype)
    frames[list(source.frames)] = planes
    return frames
