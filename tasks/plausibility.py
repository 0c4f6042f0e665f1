"""What is odd about a labelled case, judged from its label rows: sizes, HU, and which organ lies on which side.

Flags are for people to look at; a label that is certainly mirrored is refused before (`datasets_registry.label_map`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets_registry.card_parts import SpacingFault
from datasets_registry.taxonomy import all_classes, class_info

LEAST_VOXELS = 50
"""A smaller structure's mean HU says more about noise and its border than about tissue."""


def plausibility_flags(
    rows: Sequence[Mapping[str, Any]], voxel_ml: float, spacing_fault: SpacingFault | None
) -> list[str]:
    """Return remarks on the classes of one case, each as `code: what was found, what is usual`.

    rows: of the `labels` table, one a class. voxel_ml: volume of one voxel of the lake grid. spacing_fault: why the
    scan's mm are false; then volumes are not judged.
    """
    present = [row for row in rows if row["voxels"]]
    flags = [] if spacing_fault is None else [f"spacing_unreliable: {spacing_fault.reason}"]
    if spacing_fault is None:
        flags += _volumes(present, voxel_ml)
    return [*flags, *_densities(present), *_sides(present)]


def _volumes(rows: Sequence[Mapping[str, Any]], voxel_ml: float) -> list[str]:
    """A scan that ends inside the organ is not remarked on; one voxel of tolerance on the lower bound."""
    flags = []
    for row in rows:
        low, high = class_info(row["class_name"]).volume_ml
        if not row["touches_border"] and not low - voxel_ml <= row["ml"] <= high:
            flags.append(f"volume: {row['class_name']} {row['ml']:.1f} ml, usual {low:g} to {high:g} ml")
    return flags


def _densities(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    flags = []
    for row in rows:
        low, high = class_info(row["class_name"]).hu_mean
        if row["voxels"] >= LEAST_VOXELS and not low <= row["hu_mean"] <= high:
            flags.append(f"hu: {row['class_name']} {row['hu_mean']:.0f} HU in the mean, usual {low:g} to {high:g} HU")
    return flags


def _sides(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The liver lies right of the spleen, and a right organ right of its partner; x grows to the patient's right."""
    x = {row["class_name"]: float(row["centroid_mm"][0]) for row in rows}
    pairs = [(info.name, info.mirror) for info in all_classes() if info.side == "right" and info.mirror is not None]
    return [
        f"side: {right} at x = {x[right]:.0f} mm, {left} at x = {x[left]:.0f} mm, usual the other way round"
        for right, left in [("liver", "spleen"), *pairs]
        if right in x and left in x and x[right] < x[left]
    ]
