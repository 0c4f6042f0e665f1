"""What is odd about a scan as such, whatever is in it: spacing, field of view, HU, noise, metal, arms."""

from __future__ import annotations

from dataclasses import dataclass

from imaging.volume import Volume


@dataclass(frozen=True)
class UsualScans:
    """Figures of the scans a model was trained on: least and greatest along R, A, S, in mm, and how many they are."""

    cases: int
    spacing_mm: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    extent_mm: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class ScanQuality:
    """Figures of one scan, and what is odd about them.

    shape: voxels X, Y, Z. affine: 4 x 4 by rows, voxel index to RAS mm. flags: each `code: words with numbers`.
    """

    shape: tuple[int, int, int]
    affine: tuple[float, ...]
    flags: tuple[str, ...] = ()


def scan_quality(
    image: Volume, original_spacing_mm: tuple[float, float, float] | None = None, usual: UsualScans | None = None
) -> ScanQuality:
    """Return the figures and flags of a scan, HU in RAS.

    original_spacing_mm: along R, A, S, before the scan was resampled. usual: of the training scans; None judges spacing
    and extent by wide bounds of abdominal CT.
    """
    raise NotImplementedError
