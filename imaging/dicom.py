"""A DICOM CT series as one volume in HU, or a refusal that says why; nothing about the patient leaves this module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imaging.dicom_enhanced import split_frames
from imaging.dicom_header import SliceHeader, short_hash
from imaging.dicom_pixels import read_hu
from imaging.dicom_series import (
    DicomSeries,
    SeriesList,
    count_slices,
    find_series,
    position_order,
    read_headers,
)
from imaging.dicom_stack import Stack, form_stack
from imaging.errors import BadInput
from imaging.resample import shear_degrees, straighten
from imaging.volume import Step, Volume

__all__ = ["DicomSeries", "SeriesList", "find_series", "position_order", "read_series", "series_stack"]


def read_series(series: DicomSeries | Sequence[Path]) -> Volume:
    """Return the volume (columns, rows, slices towards superior) int16 HU of a series, or of the files of a folder.

    Of files of several series, the CT series of most slices is read; a step says which, why, and what was dropped.
    Frames of an enhanced CT count as slices. Padding and values below -1024 become -1024; a tilted gantry is resampled
    straight; identical copies of a slice are dropped.
    Raises BadInput for anything that is no single, whole, regular CT volume. Messages and steps name series by hash
    and files by their ordinal in name order.
    """
    stack, where = series_stack(series)
    steps = list(stack.steps)
    slices = [read_hu(header, where) for header in stack.slices]
    # (Z, Y, X) in memory, seen as (X, Y, Z)
    array = np.stack([one.hu for one in slices]).transpose(2, 1, 0)
    rescales = {(one.slope, one.intercept) for one in slices}
    if len(rescales) > 1:
        steps.append(Step("rescale_per_slice", {"slope_intercept": sorted(map(list, rescales))}))
    lossy = sum(str(one.fields.get("LossyImageCompression") or "") == "01" for one in stack.slices)
    if lossy:
        steps.append(Step("lossy_compression", {"slices": lossy}))
    padding = sum(one.padding for one in slices)
    if padding:
        steps.append(Step("clear_padding", {"voxels": padding}))
    volume = Volume(array, stack.affine, tuple(steps))
    if shear_degrees(volume.affine) < 1e-3:
        return volume
    return straighten(volume)


def series_stack(series: DicomSeries | Sequence[Path]) -> tuple[Stack, str]:
    """Return the slices that `read_series` reads, in its order, with the affine of their array, and how errors call it.

    A tilted gantry stays: the affine is sheared. Steps are those of choosing and ordering. Raises as `read_series`.
    """
    files = series.files if isinstance(series, DicomSeries) else tuple(series)
    if not files:
        raise ValueError("a DICOM series of no files: list its slices")
    where = f"DICOM series {series.key}" if isinstance(series, DicomSeries) else f"DICOM folder of {len(files)} files"
    headers = read_headers(files, where)
    _check_one_patient(headers, where)
    steps: list[Step] = []
    headers = _largest_ct(headers, steps, where)
    where = f"DICOM series {_key(headers[0])}"
    headers = [frame for header in headers for frame in _frames_of(header, where)]
    _check_kind(headers, where)
    stack = form_stack(headers, where)
    return Stack(stack.slices, stack.affine, [*steps, *stack.steps]), where


def _key(header: SliceHeader) -> str:
    return short_hash(f"{header.study_uid}|{header.series_uid}")


def _check_one_patient(headers: list[SliceHeader], where: str) -> None:
    patients = {header.patient_key for header in headers}
    if len(patients) > 1:
        raise BadInput(
            "dicom_patients",
            where,
            f"slices of {len(patients)} patients",
            "one patient",
            "sort the files into one folder per patient and series",
        )


def _frames_of(header: SliceHeader, where: str) -> list[SliceHeader]:
    """Return the slices of a file; a localizer is dropped later, and free to lack what a slice of the stack needs."""
    return [header] if header.is_localizer else split_frames(header, where)


def _largest_ct(headers: list[SliceHeader], steps: list[Step], where: str) -> list[SliceHeader]:
    groups: dict[tuple[str, str, str], list[SliceHeader]] = defaultdict(list)
    for header in headers:
        groups[header.study_uid, header.series_uid, header.modality].append(header)
    ct = sorted((g for g in groups.values() if g[0].modality == "CT"), key=lambda g: -count_slices(g))
    if not ct:
        found = sorted({header.modality or "(empty)" for header in headers})
        raise BadInput(
            "dicom_modality",
            where,
            f"Modality (0008,0060) {', '.join(found)}",
            "CT",
            "pick the CT series of this study",
        )
    if len(ct) > 1 and count_slices(ct[0]) == count_slices(ct[1]):
        raise BadInput(
            "dicom_series",
            where,
            f"{len(ct)} CT series, the two largest with {count_slices(ct[0])} slices each",
            "one series, or one that is clearly the largest",
            "give one series at a time",
        )
    dropped = [group for group in groups.values() if group is not ct[0]]
    if dropped:
        listed = [{**_described(group), "why": _why_dropped(group)} for group in dropped]
        steps.append(
            Step(
                "drop_other_series",
                {
                    "chosen": {**_described(ct[0]), "why": f"most slices of {len(ct)} CT series"},
                    "dropped": sorted(listed, key=lambda d: str(d["series"])),
                },
            )
        )
    return ct[0]


def _described(group: list[SliceHeader]) -> dict[str, str | int]:
    return {
        "series": _key(group[0]),
        "modality": group[0].modality,
        "files": len(group),
        "slices": count_slices(group),
    }


def _why_dropped(group: list[SliceHeader]) -> str:
    if group[0].modality != "CT":
        return "no CT"
    return "fewer slices" if count_slices(group) else "localizers only"


def _check_kind(headers: list[SliceHeader], where: str) -> None:
    for header in headers:
        if header.is_localizer:
            continue
        header.numbers("ImagePositionPatient", 3, where)
        header.numbers("RescaleIntercept", 1, where)
        header.numbers("RescaleSlope", 1, where)
        kind = str(header.fields.get("RescaleType") or "HU").strip().upper()
        if kind not in ("HU", "US"):
            raise BadInput(
                "dicom_rescale", f"{where}, {header.name}", f"RescaleType (0028,1054) {kind[:16]}", "HU",
                "pick a series in Hounsfield units, not a spectral map",
            )  # fmt: skip
