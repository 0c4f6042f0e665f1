"""Exports as DICOM-SEG and RTSTRUCT: masks on the slices of the source series, which must be at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from catalog.keys import content_sha256
from datasets_registry.dicom_codes import Code, class_codes
from datasets_registry.layouts.cases import file_digest
from datasets_registry.layouts.local import pseudonym
from datasets_registry.taxonomy import ClassInfo
from imaging.bits import Bits
from imaging.dicom import DicomSeries, find_series, read_series
from imaging.dicom_seg_write import CodedConcept, SegmentName, write_segmentation
from imaging.dicom_source import SourceSeries, open_source
from imaging.errors import BadInput
from imaging.layers import paint, split_layers
from imaging.resample import orient_ras
from imaging.rtstruct_write import write_structures
from imaging.volume import Volume
from tasks.export_subject import ExportSubject, Origin


@dataclass(frozen=True, eq=False)
class CaseSource:
    """The series a case was ingested from. scan: as `read_series` returns it. headers: what labels refer to."""

    scan: Volume
    headers: SourceSeries


def find_source(case: Mapping[str, Any], files: Path | Sequence[Path] | None, *, keep_patient: bool) -> CaseSource:
    """Return the DICOM series that a `cases` row was read from, proved by its decoded voxels and geometry.

    files: the folder that holds it, perhaps among others, or its slices. The series of its
    pseudonym is read first, and only those of enough slices.
    keep_patient: labels keep patient and study of the series; else the case's pseudonym stands for the patient.
    Raises FileNotFoundError that says what to give where there is no folder, or none of its series is the case's.
    """
    where = str(case["case_id"])
    remedy = "give the folder with the DICOM files it was ingested from: --source FOLDER"
    if files is None:
        raise FileNotFoundError(f"{where}: dicom_seg and rtstruct refer to the source series; {remedy}")
    if isinstance(files, Path) and not files.is_dir():
        raise FileNotFoundError(f"{where}: the folder of the source is not there; {remedy}")
    candidates = _likely(case, files) if isinstance(files, Path) else [tuple(files)]
    unreadable = 0
    for series in candidates:
        try:
            scan = read_series(series)
        except BadInput:
            unreadable += 1
            continue
        upright = orient_ras(scan)
        if content_sha256(upright.array, upright.affine) == case["content_sha256"]:
            patient = None if keep_patient else str(case["native_id"])
            return CaseSource(scan, open_source(series, pseudonym=patient))
    raise FileNotFoundError(
        f"{where}: none of {len(candidates)} CT series of enough slices there is this scan by its voxels "
        f"({unreadable} could not be read); {remedy}, or leave dicom_seg and rtstruct out where the scan did not come "
        "as DICOM"
    )


def _likely(case: Mapping[str, Any], folder: Path) -> list[DicomSeries]:
    """Return the CT series of a folder that may be the case, the one of its pseudonym first, then by slices."""
    slices = int(case["original_shape"][2])
    found = [(series, name) for series, name in _series_of(folder) if series.slices >= slices]
    return [series for series, _ in sorted(found, key=lambda one: (one[1] != case["native_id"], one[0].slices))]


@lru_cache(maxsize=2)
def _series_of(folder: Path) -> tuple[tuple[DicomSeries, str], ...]:
    """Return the CT series of a folder with their pseudonyms; kept, since every case of a cohort asks."""
    return tuple(
        (series, pseudonym(file_digest(path) for path in series.files))
        for series in find_series(folder)
        if series.modality == "CT"
    )


def segment_name(info: ClassInfo, origin: Origin) -> SegmentName:
    """Return how DICOM calls a class whose mask is of `origin`."""

    def concept(code: Code) -> CodedConcept:
        return CodedConcept(code[0], code[1], code[2])

    codes = class_codes(info.name)
    return SegmentName(
        info.index,
        info.title,
        info.colour,
        concept(codes.category),
        concept(codes.type),
        None if codes.modifier is None else concept(codes.modifier),
        () if codes.region is None else (concept(codes.region),),
        origin.algorithm,
    )


def write_dicom_seg(subject: ExportSubject, bits: Bits, source: SourceSeries, folder: Path) -> dict[str, Any]:
    """Write label maps as `segmentation.seg.dcm`, `segmentation_2.seg.dcm` ...; return the classes of each.

    bits: on the source's slices. A LABELMAP holds one class a voxel: classes that overlap go to further files of the
    same series, so that nothing is painted over. A class without a voxel is named in the first file.
    """
    infos = {info.channel: info for info in subject.classes}
    layers = split_layers(bits, [info.channel for info in subject.classes])
    maps: dict[str, list[str]] = {}
    for number, layer in enumerate(layers, start=1):
        name = "segmentation.seg.dcm" if number == 1 else f"segmentation_{number}.seg.dcm"
        write_segmentation(
            folder / name,
            paint(bits, {channel: infos[channel].index for channel in layer}),
            [segment_name(infos[channel], subject.origins[infos[channel].name]) for channel in layer],
            source,
            software_version=version("ct-label-factory"),
            description="CT label factory, masks",
            number=number,
        )
        maps[name] = [infos[channel].name for channel in layer]
    return {"dicom_seg_label_maps": maps}


def write_rtstruct(subject: ExportSubject, bits: Bits, source: SourceSeries, folder: Path) -> dict[str, Any]:
    """Write the masks as contours on the source's slices, `structures.dcm`; classes may overlap there."""
    structures = [(info.channel, segment_name(info, subject.origins[info.name])) for info in subject.classes]
    write_structures(
        folder / "structures.dcm",
        bits,
        structures,
        source,
        software_version=version("ct-label-factory"),
        description="CT label factory, masks",
    )
    empty = [info.name for info in subject.classes if not np.any(bits[info.channel // 32] >> (info.channel % 32) & 1)]
    return {"rtstruct_without_contours": empty} if empty else {}
