"""DICOM segmentations of type LABELMAP, written by highdicom: one segment a class, on the slices of a CT series."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code
from pydicom.uid import RLELossless, generate_uid

from imaging.dicom_source import SourceSeries, frame_order


@dataclass(frozen=True)
class CodedConcept:
    """A concept of a coding scheme, such as SCT 10200004 "Liver"."""

    value: str
    meaning: str
    scheme: str = "SCT"

    def code(self) -> Code:
        """Return it as pydicom and highdicom take it."""
        return Code(self.value, self.scheme, self.meaning)


@dataclass(frozen=True)
class SegmentName:
    """One segment. number: its pixel value. label: free text. colour: "#rrggbb".

    category, type: what it is (PS3.3 C.8.20.4). modifier: its side. regions: where a finding lies.
    algorithm: name and version of the model that drew it; None where people did.
    """

    number: int
    label: str
    colour: str
    category: CodedConcept
    type: CodedConcept
    modifier: CodedConcept | None = None
    regions: tuple[CodedConcept, ...] = ()
    algorithm: tuple[str, str] | None = None


def write_segmentation(
    path: Path,
    label: NDArray[Any],
    segments: Sequence[SegmentName],
    source: SourceSeries,
    *,
    software_version: str,
    description: str = "",
    number: int = 1,
) -> None:
    """Write a label map as a DICOM SEG of type LABELMAP that refers to `source`, whose study it joins.

    label: (X, Y, Z) uint8 or uint16 on `source.grid`, 0 for none. number: InstanceNumber in its series, for several
    label maps of one scan. Slices without a segment are left out; a tilted gantry's frames lie where its slices do.
    The same input gives the same UIDs. Raises ValueError for another grid, or a value that no segment names.
    """
    if label.shape != source.grid.shape:
        raise ValueError(f"label of shape {label.shape} for a series of shape {source.grid.shape}: resample it first")
    named = {segment.number for segment in segments}
    if unnamed := sorted(set(np.unique(label).tolist()) - named - {0}):
        raise ValueError(f"label values {unnamed[:10]} without a segment; name them, or leave them out")
    planes = frame_order(source, np.ascontiguousarray(label.transpose(2, 1, 0)))  # (slices, rows, columns)
    series_uid, instance_uid = _uids(planes, segments, source, number)
    present = [segment for segment in segments if bool((label == segment.number).any())] or list(segments)
    seg = hd.seg.Segmentation(
        source_images=list(source.headers),
        pixel_array=planes,
        segmentation_type=hd.seg.SegmentationTypeValues.LABELMAP,
        segment_descriptions=[_description(segment) for segment in present],
        series_instance_uid=series_uid,
        series_number=900,
        sop_instance_uid=instance_uid,
        instance_number=number,
        manufacturer="CT label factory",
        manufacturer_model_name="ctfactory",
        software_versions=software_version,
        device_serial_number="none",
        content_description=description[:64] or None,
        content_label="SEGMENTATION",
        transfer_syntax_uid=RLELossless,
        omit_empty_frames=True,
        series_description=description[:64] or None,
    )
    seg.save_as(path)


def _description(segment: SegmentName) -> Any:
    algorithm = segment.algorithm
    described = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label[:64],
        segmented_property_category=segment.category.code(),
        segmented_property_type=segment.type.code(),
        algorithm_type="MANUAL" if algorithm is None else "AUTOMATIC",
        algorithm_identification=None
        if algorithm is None
        else hd.AlgorithmIdentificationSequence(
            name=algorithm[0][:64], family=Code("123109", "DCM", "Artificial Intelligence"), version=algorithm[1][:64]
        ),
        anatomic_regions=[region.code() for region in segment.regions] or None,
        display_color=hd.color.CIELabColor.from_rgb(*_rgb(segment.colour)),
    )
    if segment.modifier is not None:
        side = hd.sr.CodedConcept.from_code(segment.modifier.code())
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return described


def _rgb(colour: str) -> tuple[int, int, int]:
    digits = colour.lstrip("#")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def _uids(planes: NDArray[Any], segments: Sequence[SegmentName], source: SourceSeries, number: int) -> tuple[str, str]:
    """Return UIDs of series and instance, made from what is written; all label maps of one making share the series."""
    of_series = [str(source.headers[0].SeriesInstanceUID), "SEG", repr([segment.algorithm for segment in segments])]
    content = [*of_series, hashlib.sha256(planes.tobytes()).hexdigest(), repr(list(segments)), str(number)]
    return str(generate_uid(entropy_srcs=of_series)), str(generate_uid(entropy_srcs=content))
