"""Whether the values of a scan are HU: where air, fat and soft tissue lie in its histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAT_HU, SOFT_HU = (-150, -50), (0, 160)
"""Where fat and soft tissue lie, native or with any contrast agent."""
TISSUE_HU = (-700, 900)
SHIFTS = range(-500, 701, 10)
SHIFT_HU, SHIFT_GAIN = 70, 1.35
"""Tissue counts as shifted from this offset on, where the offset explains so many times the voxels that none does."""
LEAST_TISSUE = 0.01
AIR_HU = -1000
HIGHEST_AIR_HU = -900
PADDING_HU = -1020


@dataclass(frozen=True)
class HuFigures:
    """Where a scan's tissues lie.

    air_hu: 10th percentile of what is below -400 HU on the four side faces (of which lung is a part in a cropped scan);
    None where they show no air, or padding only.
    shift_hu: the offset at which most voxels fall where fat and soft tissue lie, 0 in a true scan. gain: voxels that
    fall there with the offset, per voxel without. lowest, highest: HU, and the share of voxels of just that value.
    """

    air_hu: float | None
    shift_hu: int
    gain: float
    lowest: tuple[float, float]
    highest: tuple[float, float]


def hu_figures(array: NDArray[np.integer[Any]]) -> HuFigures:
    """Return the figures of HU (X, Y, Z); some voxels of a scan are enough."""
    faces = np.concatenate([array[0].ravel(), array[-1].ravel(), array[:, 0].ravel(), array[:, -1].ravel()])
    air = faces[faces < -400]
    shows_air = len(air) >= 0.02 * len(faces) and np.mean(air <= PADDING_HU) < 0.9
    low, high = float(array.min()), float(array.max())
    shift, gain = _tissue_shift(array)
    return HuFigures(
        float(np.percentile(air, 10)) if shows_air else None,
        shift,
        gain,
        (low, float(np.mean(array == low))),
        (high, float(np.mean(array == high))),
    )


def _tissue_shift(array: NDArray[np.integer[Any]]) -> tuple[int, float]:
    low, high = TISSUE_HU
    tissue = array[(array > low) & (array < high)]
    if len(tissue) < LEAST_TISSUE * array.size:
        return 0, 1.0
    below = np.concatenate([[0], np.cumsum(np.bincount(tissue.astype(np.int64).ravel() - low, minlength=high - low))])

    def inside(shift: int) -> int:
        total = 0
        for first, last in (FAT_HU, SOFT_HU):
            ends = np.clip([first + shift - low, last + shift - low], 0, high - low)
            total += int(below[ends[1]] - below[ends[0]])
        return total

    counts = {shift: inside(shift) for shift in SHIFTS}
    best = max(counts, key=lambda shift: (counts[shift], -abs(shift)))
    return best, counts[best] / max(1, counts[0])


def hu_flags(found: HuFigures) -> list[str]:
    """Return what is odd: `hu_shift` (an offset on everything), `hu_scale` (air is elsewhere than tissue says)."""
    flags = []
    shifted = abs(found.shift_hu) >= SHIFT_HU and found.gain >= SHIFT_GAIN
    high_air = found.air_hu is not None and found.air_hu > HIGHEST_AIR_HU
    tissue = f"fat and soft tissue {found.shift_hu:+d} HU from where they lie in CT"
    if shifted and (high_air or found.air_hu is None or found.air_hu <= PADDING_HU):
        flags.append(f"hu_shift: {tissue}, {_air_text(found)}")
    elif shifted:
        flags.append(f"hu_scale: {tissue}, {_air_text(found)}: the rescale slope is wrong, perhaps")
    elif high_air:
        flags.append(f"hu_scale: {_air_text(found)}, usual {AIR_HU} HU")
    if found.lowest[0] > HIGHEST_AIR_HU and found.lowest[1] > 0.05:
        flags.append(f"hu_clipped: {found.lowest[1]:.0%} of the voxels have the lowest value, {found.lowest[0]:.0f} HU")
    if found.highest[0] < 1200 and found.highest[1] > 0.002:
        flags.append(
            f"hu_clipped: {found.highest[1]:.1%} of the voxels have the highest value, {found.highest[0]:.0f} HU"
        )
    return flags


def _air_text(found: HuFigures) -> str:
    return "no air beside the body" if found.air_hu is None else f"air at {found.air_hu:.0f} HU"
