"""What is read of a DICOM slice's header: an allow-list of tags, none of them kept that tells who the patient is."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from imaging.errors import BadInput

WHO_TAGS = ("PatientID", "PatientName", "PatientBirthDate")
GEOMETRY_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "InstanceNumber",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "LossyImageCompression",
    "Rows",
    "Columns",
)
PIXEL_TAGS = (
    *GEOMETRY_TAGS,
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)
ENHANCED_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
INFLATED_MOST = 4 * 2**30
"""A deflated file that unpacks to more bytes than this is refused before it fills the memory."""
PARSE_ERRORS = (
    InvalidDicomError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class SliceHeader:
    """One slice without its pixels: a DICOM file, or a frame of one. UIDs and path stay out of its text form.

    ordinal: place among the files given, in name order, from 1. uid_key: hash of study and series UID ("" when both
    are empty). patient_key: hash of who. fields: the pydicom data set of GEOMETRY_TAGS only.
    frame: index among the file's frames, None for a file of one slice. decoded: what the frames of one file share, so
    that its pixels are decoded once.
    """

    path: Path = field(repr=False)
    ordinal: int
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    patient_key: str
    modality: str
    fields: Any = field(repr=False)
    frame: int | None = None
    decoded: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def name(self) -> str:
        """Return how messages call this slice: its file's ordinal, and frame or instance number if it has one."""
        if self.frame is not None:
            return f"file {self.ordinal}, frame {self.frame + 1}"
        instance = self.fields.get("InstanceNumber")
        return f"file {self.ordinal}" + (f" (instance {int(instance)})" if instance not in (None, "") else "")

    def numbers(self, keyword: str, count: int, where: str) -> NDArray[np.float64]:
        """Return `count` finite numbers of a tag; BadInput naming the tag when it is missing or something else."""
        value = self.fields.get(keyword)
        items = [] if value in (None, "") else ([value] if count == 1 else list(value))
        try:
            numbers = np.array([float(item) for item in items])
        except (TypeError, ValueError):
            numbers = np.array([])
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise missing_tag(where, self.name, keyword, f"{count} finite number{'s' if count > 1 else ''}")
        return numbers

    @property
    def frame_count(self) -> int:
        """Return how many slices the file holds."""
        frames = self.fields.get("NumberOfFrames")
        return 1 if frames in (None, "") else max(int(frames), 1)

    @property
    def is_enhanced(self) -> bool:
        """Tell whether geometry and rescale stand in functional groups (Enhanced CT), one item for each frame."""
        return self.frame is None and self.fields.get("SOPClassUID") in ENHANCED_CLASSES

    @property
    def is_localizer(self) -> bool:
        """Tell whether ImageType calls this a localizer (scout)."""
        kinds = self.fields.get("ImageType") or []
        return any(str(kind).upper() in ("LOCALIZER", "SCOUT") for kind in kinds)


def read_header(path: Path, ordinal: int) -> SliceHeader:
    """Return the header of one DICOM file.

    Raises pydicom's InvalidDicomError when it is no DICOM file, or one of PARSE_ERRORS when it is a damaged one.
    """
    with open_quietly(path) as file:
        fields = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*GEOMETRY_TAGS, *WHO_TAGS])
        if fields.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            raise InvalidDicomError("a DICOMDIR holds no image")
        if not fields.get("Modality") and "Rows" not in fields:
            raise ValueError("nothing of an image in the header")
        who = [str(fields.get(tag) or "").strip() for tag in WHO_TAGS]
        for tag in WHO_TAGS:
            if tag in fields:
                delattr(fields, tag)
        # the id alone where there is one: the same person's name is spelled in several ways
        patient_key = short_hash(who[0] if who[0] else "|".join(who[1:]))
        texts = [str(fields.get(tag) or "") for tag in ("StudyInstanceUID", "SeriesInstanceUID", "Modality")]
    return SliceHeader(path, ordinal, texts[0], texts[1], patient_key, texts[2], fields)


@contextmanager
def open_quietly(path: Path) -> Iterator[BinaryIO]:
    """Open a DICOM file so that pydicom's warnings and log lines can name neither the file nor what its header holds.

    They quote the name of the file, which may be the patient's: a file opened by number has none.
    """
    with open(os.open(path, os.O_RDONLY), "rb") as file, pydicom.config.disable_value_validation():  # noqa: PTH123
        _refuse_bomb(file)
        yield file


def _refuse_bomb(file: BinaryIO) -> None:
    """Raise ValueError where a deflated file unpacks to more than INFLATED_MOST; pydicom itself has no limit."""
    start = file.read(1024)
    if DeflatedExplicitVRLittleEndian.encode() in start:
        # the group length element ends at byte 144 and says how many bytes of file meta information follow it
        file.seek(144 + int.from_bytes(start[140:144], "little"))
        inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while packed := inflate.unconsumed_tail or file.read(2**20):
            total += len(inflate.decompress(packed, 2**24))
            if total > INFLATED_MOST:
                raise ValueError("a deflated data set beyond every size of a scan")
    file.seek(0)


def short_hash(text: str) -> str:
    """Return the first 10 hex digits of a text's SHA-256, by which it can be named without telling it."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def missing_tag(where: str, name: str, keyword: str, expected: str) -> BadInput:
    """Return the refusal of a slice that lacks a tag, or holds nonsense in it."""
    tag = pydicom.tag.Tag(keyword)
    return BadInput(
        "dicom_tag",
        where,
        f"{name} without a usable {keyword} ({tag.group:04X},{tag.element:04X})",
        expected,
        "export the series again as CT Image Storage with all its tags",
    )
