"""Slices that form one regular stack: order, gaps, duplicates, tilt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.dicom_header import SliceHeader, missing_tag
from imaging.dicom_pixels import read_hu
from imaging.dicom_series import slice_positions
from imaging.errors import BadInput
from imaging.volume import Affine, Step

SAME_MM = 0.01
UNEVEN_SHARE = 0.05
DRIFT_MM = 0.1
"""In-plane drift over the stack above which the slices are tilted and not only rounded."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order towards superior, the affine of their (columns, rows, slices) array in RAS mm, steps taken."""

    slices: list[SliceHeader]
    affine: Affine
    steps: list[Step]


def form_stack(headers: Sequence[SliceHeader], where: str) -> Stack:
    """Return the regular stack that slices form; BadInput when they form none.

    Slices of another orientation (localizers) and identical copies are left out, with a step.
    """
    steps: list[Step] = []
    kept = _drop_other_orientations(list(headers), steps, where)
    spacing = _common(kept, "PixelSpacing", 2, where)
    matrix = {(int(h.fields.get("Rows") or 0), int(h.fields.get("Columns") or 0)) for h in kept}
    if len(matrix) > 1 or (0, 0) in matrix:
        raise BadInput(
            "dicom_matrix",
            where,
            f"slices of {sorted(matrix)} rows and columns",
            "one size",
            "give one series at a time",
        )
    order = np.argsort(slice_positions(kept, where), kind="stable")
    kept = _drop_copies([kept[i] for i in order], steps, where)
    along = slice_positions(kept, where)
    _check_even(along, where)
    return Stack(kept, _affine(kept, spacing, where), steps)


def _drop_other_orientations(headers: list[SliceHeader], steps: list[Step], where: str) -> list[SliceHeader]:
    images = [header for header in headers if not header.is_localizer]
    groups: list[tuple[NDArray[np.float64], list[SliceHeader]]] = []
    for header in images:
        cosines = header.numbers("ImageOrientationPatient", 6, where)
        for known, members in groups:
            if np.abs(known - cosines).max() < 1e-3:
                members.append(header)
                break
        else:
            groups.append((cosines, [header]))
    groups.sort(key=lambda group: -len(group[1]))
    if not groups:
        raise BadInput(
            "dicom_localizer", where, f"{len(headers)} localizer images", "axial CT slices", "pick the CT series"
        )
    if len(groups) > 1 and len(groups[0][1]) == len(groups[1][1]):
        raise BadInput(
            "dicom_orientation",
            where,
            f"two slice orientations with {len(groups[0][1])} slices each",
            "one orientation, besides a few localizers",
            "give one series at a time",
        )
    kept = groups[0][1]
    dropped = len(headers) - len(kept)
    if dropped:
        localizers = len(headers) - len(images)
        steps.append(Step("drop_other_orientations", {"slices": dropped, "localizers": localizers, "kept": len(kept)}))
    return kept


def _common(headers: Sequence[SliceHeader], keyword: str, count: int, where: str) -> NDArray[np.float64]:
    values = [header.numbers(keyword, count, where) for header in headers]
    for header, value in zip(headers, values, strict=True):
        if np.abs(value - values[0]).max() > 1e-3 or value.min() <= 0:
            raise BadInput(
                "dicom_spacing",
                where,
                f"{keyword} {value.tolist()} in {header.name} and {values[0].tolist()} in {headers[0].name}",
                "one positive value in all slices",
                "give one series at a time",
            )
    return values[0]


def _drop_copies(headers: list[SliceHeader], steps: list[Step], where: str) -> list[SliceHeader]:
    """Keep one of several identical slices at one place; refuse places with different ones."""
    places: list[list[SliceHeader]] = []
    for header in headers:
        here = header.numbers("ImagePositionPatient", 3, where)
        if places and np.abs(here - places[-1][0].numbers("ImagePositionPatient", 3, where)).max() < SAME_MM:
            places[-1].append(header)
        else:
            places.append([header])
    for place in places:
        first = read_hu(place[0], where) if len(place) > 1 else None
        for other in place[1:]:
            if first is not None and not np.array_equal(first.hu, read_hu(other, where).hu):
                raise _conflict(place[0], other, place, len(places), where)
    copies = len(headers) - len(places)
    if copies:
        steps.append(Step("drop_identical_slices", {"slices": copies}))
    return [place[0] for place in places]


def _conflict(first: SliceHeader, other: SliceHeader, place: list[SliceHeader], places: int, where: str) -> BadInput:
    position = [round(float(v), 3) for v in first.numbers("ImagePositionPatient", 3, where)]
    if places == 1:
        return BadInput(
            "dicom_same_position",
            where,
            f"{len(place)} different images at the one position {position} mm (LPS)",
            "slices at different positions",
            "this is no volume (bolus tracking or one slice over time): pick the diagnostic series",
        )
    return BadInput(
        "dicom_conflicting_slices",
        where,
        f"{first.name} and {other.name} with different pixels at one position {position} mm (LPS)",
        "one image per position",
        "find out which slice belongs to the series and remove the other",
    )


def _check_even(along: NDArray[np.float64], where: str) -> None:
    if len(along) < 3:
        return
    gaps = np.diff(along)
    usual = _usual_gap(gaps)
    allowed = max(UNEVEN_SHARE * usual, 2 * SAME_MM)
    uneven = np.flatnonzero(np.abs(gaps - usual) > allowed)
    if len(uneven):
        listed = [f"{gaps[i]:.3f} mm from {along[i]:.3f} to {along[i + 1]:.3f}" for i in uneven[:5]]
        raise BadInput(
            "dicom_missing_slice",
            where,
            f"{len(uneven)} uneven gaps of {len(gaps)}: " + "; ".join(listed),
            f"{usual:.3f} mm between all slices",
            "fetch the missing slices, or give one series at a time",
        )


def _usual_gap(gaps: NDArray[np.float64]) -> float:
    """Return the most frequent gap (to 0.01 mm), the smallest of equally frequent ones."""
    counts = Counter(np.round(gaps, 2).tolist())
    most = max(counts.values())
    return float(np.median(gaps[np.isclose(gaps, min(g for g, n in counts.items() if n == most), atol=0.006)]))


def _affine(kept: list[SliceHeader], spacing: NDArray[np.float64], where: str) -> Affine:
    cosines = kept[0].numbers("ImageOrientationPatient", 6, where)
    positions = np.array([header.numbers("ImagePositionPatient", 3, where) for header in kept])
    normal = np.cross(cosines[:3], cosines[3:])
    normal /= np.linalg.norm(normal)
    if len(kept) == 1:
        step = normal * _thickness(kept[0], where)
    else:
        step = (positions[-1] - positions[0]) / (len(kept) - 1)
        off_line = np.linalg.norm(positions - positions[0] - np.arange(len(kept))[:, None] * step, axis=1).max()
        if off_line > max(0.25 * float(np.linalg.norm(step)), 0.5):
            raise BadInput(
                "dicom_positions",
                where,
                f"a slice {off_line:.2f} mm off the line of the stack",
                "positions on one straight line",
                "give one series at a time, or export the series again",
            )
        drift = step - (step @ normal) * normal
        if np.linalg.norm(drift) * (len(kept) - 1) <= DRIFT_MM:
            step = step - drift
    lps = np.eye(4)
    # the first array axis runs over columns, so its step is the spacing between columns
    lps[:3, 0], lps[:3, 1] = cosines[:3] * spacing[1], cosines[3:] * spacing[0]
    lps[:3, 2], lps[:3, 3] = step, positions[0]
    affine: Affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    return affine


def _thickness(header: SliceHeader, where: str) -> float:
    value: Any = header.fields.get("SliceThickness")
    if value in (None, "") or float(value) <= 0:
        raise missing_tag(where, header.name, "SliceThickness", "a positive number of mm for a single slice")
    return float(value)
