"""What is odd about a scan as such, whatever is in it: spacing, field of view, HU, noise, metal, arms.

Flags are `code: words with numbers`. Bounds are wide: they are meant for what a network has not seen, not for taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imaging.scan_hu import HuFigures, hu_figures, hu_flags
from imaging.volume import Volume

Range = tuple[float, float]
AXES = ("left to right", "front to back", "along the body")

BODY_HU = -300
COARSE_MM = 3.0
SPACING_SLACK, EXTENT_SLACK = 1.3, 0.75
"""The factor by which spacing may leave the training scans' range, and which share of their least extent is enough."""
CUT_SHARE = 0.5
"""Share of a side face of the scan that is body from which the body counts as cut off there."""
NOISE_HU = 60.0
METAL_HU, METAL_ML = 2500, 1.0
ARM_CM2, ARM_MM, ARM_BONE_HU = 12.0, 40.0, 250


@dataclass(frozen=True)
class UsualScans:
    """Figures of the scans a model was trained on: least and greatest along R, A, S, in mm, and how many they are."""

    cases: int
    spacing_mm: tuple[Range, Range, Range]
    extent_mm: tuple[Range, Range, Range]


ABDOMINAL_CT = UsualScans(0, ((0.25, 2.0), (0.25, 2.0), (0.25, 8.0)), ((240.0, 700.0), (180.0, 700.0), (130.0, 2000.0)))
"""Bounds where nothing is known of the training scans."""


@dataclass(frozen=True)
class ScanQuality:
    """Figures of one scan, and what is odd about them.

    shape: voxels X, Y, Z. affine: 4 x 4 by rows, voxel index to RAS mm. hu: see `HuFigures`. noise_hu: standard
    deviation of the noise between neighbours in tissue. metal_ml: volume above 2500 HU. cut_share: of the faces at
    -x, +x, -y, +y, the share that is body. arms_mm: length over which something with bone lies beside the trunk.
    flags: each `code: words with numbers`.
    """

    shape: tuple[int, int, int]
    affine: tuple[float, ...]
    hu: HuFigures
    noise_hu: float
    metal_ml: float
    cut_share: tuple[float, float, float, float]
    arms_mm: float
    flags: tuple[str, ...] = ()


def scan_quality(
    image: Volume, original_spacing_mm: tuple[float, float, float] | None = None, usual: UsualScans | None = None
) -> ScanQuality:
    """Return the figures and flags of a scan, integer HU in RAS (X, Y, Z).

    original_spacing_mm: along R, A, S, before the scan was resampled; None: it was not. usual: of the training scans;
    None judges spacing and extent by wide bounds of abdominal CT.
    """
    step = [max(1, int(COARSE_MM / spacing)) for spacing in image.spacing_mm]
    coarse = np.ascontiguousarray(image.array[:: step[0], :: step[1], :: step[2]])
    coarse_mm = [spacing * every for spacing, every in zip(image.spacing_mm, step, strict=True)]
    found = ScanQuality(
        image.shape,
        tuple(float(value) for value in image.affine.ravel()),
        hu_figures(coarse),
        _noise(image.array),
        float(np.count_nonzero(image.array >= METAL_HU)) * image.voxel_ml,
        _cut_shares(coarse),
        _arms_mm(coarse, coarse_mm),
    )
    spacing = image.spacing_mm if original_spacing_mm is None else original_spacing_mm
    return replace(found, flags=tuple(_flags(found, image, spacing, usual or ABDOMINAL_CT)))


def _flags(found: ScanQuality, image: Volume, spacing: Sequence[float], usual: UsualScans) -> list[str]:
    flags = [*hu_flags(found.hu), *_spacing_flags(spacing, usual), *_view_flags(found, image, usual)]
    if found.noise_hu > NOISE_HU:
        flags.append(f"noise: {found.noise_hu:.0f} HU standard deviation in tissue, usual up to {NOISE_HU:.0f} HU")
    if found.metal_ml >= METAL_ML:
        flags.append(f"metal: {found.metal_ml:.1f} ml above {METAL_HU} HU, usual below {METAL_ML:g} ml")
    if found.arms_mm >= ARM_MM:
        flags.append(f"arms: something with bone lies beside the trunk over {found.arms_mm:.0f} mm, arms perhaps")
    return flags


def _spacing_flags(spacing: Sequence[float], usual: UsualScans) -> list[str]:
    flags = []
    for value, (low, high), axis in zip(spacing, usual.spacing_mm, AXES, strict=True):
        if not low / SPACING_SLACK <= value <= high * SPACING_SLACK:
            flags.append(f"spacing: {value:.2f} mm {axis}, {_whose(usual)} {low:.2f} to {high:.2f} mm")
    return flags


def _view_flags(found: ScanQuality, image: Volume, usual: UsualScans) -> list[str]:
    flags = []
    for voxels, spacing, (low, high), axis in zip(image.shape, image.spacing_mm, usual.extent_mm, AXES, strict=True):
        if voxels * spacing < EXTENT_SLACK * low:
            flags.append(f"cropped: {voxels * spacing:.0f} mm {axis}, {_whose(usual)} {low:.0f} to {high:.0f} mm")
    for share, side in zip(found.cut_share, ("left", "right", "back", "front"), strict=True):
        if share >= CUT_SHARE:
            flags.append(f"cropped: the body goes on beyond the scan's {side} face, {share:.0%} of which is body")
    return flags


def _whose(usual: UsualScans) -> str:
    return f"the {usual.cases} training scans have" if usual.cases else "usual are"


def _noise(array: NDArray[np.integer[Any]]) -> float:
    """Return the standard deviation of what differs between neighbours in tissue, 0 where there is next to none.

    The median of the absolute second difference in both directions of a plane (Immerkaer 1996, with a median for the
    mean, so that edges count less). Resampling makes neighbours alike and the figure smaller.
    """
    planes = array[:, :, :: max(1, array.shape[2] // 24)].astype(np.float32)
    if min(planes.shape[:2]) < 3:
        return 0.0
    along = planes[:-2] - 2 * planes[1:-1] + planes[2:]
    both = along[:, :-2] - 2 * along[:, 1:-1] + along[:, 2:]
    middle = ndimage.uniform_filter(planes, (3, 3, 1))[1:-1, 1:-1]
    # where air is near, the edge is larger than any noise
    lowest = ndimage.minimum_filter(middle, (3, 3, 1))
    tissue = (lowest > BODY_HU) & (middle < 300)
    if np.count_nonzero(tissue) < 200:
        return 0.0
    return float(np.median(np.abs(both[tissue]))) / 0.6745 / 6.0


def _cut_shares(coarse: NDArray[np.integer[Any]]) -> tuple[float, float, float, float]:
    body = coarse > BODY_HU
    return (
        float(body[0].mean()),
        float(body[-1].mean()),
        float(body[:, 0].mean()),
        float(body[:, -1].mean()),
    )


def _arms_mm(coarse: NDArray[np.integer[Any]], spacing_mm: Sequence[float]) -> float:
    """Return the length along Z over which a plane shows, beside its largest region, another one with bone in it."""
    least = ARM_CM2 * 100.0 / (spacing_mm[0] * spacing_mm[1])
    planes = 0
    for k in range(coarse.shape[2]):
        regions, count = ndimage.label(coarse[:, :, k] > BODY_HU)
        if count < 2:
            continue
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        sizes[0] = 0
        trunk = int(sizes.argmax())
        bony = np.bincount(regions.ravel(), weights=(coarse[:, :, k] > ARM_BONE_HU).ravel(), minlength=count + 1)
        beside = [r for r in range(1, count + 1) if r != trunk and sizes[r] >= least and bony[r] > 0.02 * sizes[r]]
        planes += any(_lies_beside(regions, r, trunk) for r in beside)
    return planes * float(spacing_mm[2])


def _lies_beside(regions: NDArray[np.int32], region: int, trunk: int) -> bool:
    """Tell whether the middle of a region is left or right of the trunk: what lies below it is the table."""
    xs = np.flatnonzero((regions == trunk).any(axis=1))
    middle = float(np.nonzero(regions == region)[0].mean())
    return bool(middle < xs[0] or middle > xs[-1])
