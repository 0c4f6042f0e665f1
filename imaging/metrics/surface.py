"""Surfaces of masks, and the surface Dice at a tolerance (NSD)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from imaging.components import Box, bounding_box, box_slices
from imaging.metrics.overlap import check_masks

Spacing = tuple[float, float, float]
FULL = np.uint8(255)
MOST_MARKS = 2 * 10**7
"""Writes (surface points x voxels within the tolerance) up to which marking beats a tree search."""


def surface_dice(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies within `tolerance_mm` of the other one, weighted by area in mm2.

    a, b: (X, Y, Z) bool. spacing_mm: X Y Z. nan when both masks are empty, 0.0 when one is.
    The surface runs between voxel centres: each 2 x 2 x 2 neighbourhood that is neither full nor empty is one surface
    element, with the area of its marching-cubes triangles. Same values as the surface-distance package
    (Nikolov et al., arXiv 1809.04430), which takes the distance from element centre to element centre.
    """
    check_masks(a, b)
    if len(spacing_mm) != 3 or min(spacing_mm) <= 0 or tolerance_mm < 0:
        raise ValueError(f"spacing_mm {spacing_mm}, tolerance_mm {tolerance_mm}: three positive numbers and one >= 0")
    box_a, box_b = bounding_box(a), bounding_box(b)
    if box_a is None or box_b is None:
        return float("nan") if box_a is None and box_b is None else 0.0
    # (union) box, so that both surfaces share one index space
    box = (*np.minimum(box_a[:3], box_b[:3]).tolist(), *np.maximum(box_a[3:], box_b[3:]).tolist())
    spacing = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    areas = _areas_by_code(spacing)
    points_a, area_a, shape = _surface(a, box, box_a, areas)
    points_b, area_b, _ = _surface(b, box, box_b, areas)
    near = (
        area_a[_within(points_a, points_b, shape, spacing, tolerance_mm)].sum()
        + area_b[_within(points_b, points_a, shape, spacing, tolerance_mm)].sum()
    )
    return float(near / (area_a.sum() + area_b.sum()))


def _surface(
    mask: NDArray[np.bool_], box: tuple[int, ...], own: Box, areas: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64], tuple[int, int, int]]:
    """Return the surface elements of a mask: flat positions (n,) in the lattice of `box`, areas (n,), lattice shape.

    Lattice point (i, j, k) is the corner shared by voxels i-1..i, j-1..j, k-1..k, so each axis has one more point than
    voxels. Codes are only computed inside the mask's `own` box.
    """
    crop = mask[box_slices(own)]
    codes = _neighbour_codes(crop)
    hits = np.flatnonzero((codes + np.uint8(1)) > 1)  # 255 wraps to 0: neither empty nor full
    shape = (box[3] - box[0] + 1, box[4] - box[1] + 1, box[5] - box[2] + 1)
    i, j, k = np.unravel_index(hits, codes.shape)
    flat = ((i + (own[0] - box[0])) * shape[1] + (j + (own[1] - box[1]))) * shape[2] + (k + (own[2] - box[2]))
    return flat, areas[codes.ravel()[hits]], shape


def _neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return (X+1, Y+1, Z+1) uint8: bit by bit which of the 8 voxels around each corner are set.

    Bits by (x, y, z) side, lower side first: 128 64 32 16 | 8 4 2 1. Built by doubling, one axis at a time.
    """
    padded = np.zeros([n + 2 for n in mask.shape], dtype=np.uint8)
    padded[1:-1, 1:-1, 1:-1] = mask
    pairs = (padded[:, :, :-1] << np.uint8(1)) | padded[:, :, 1:]
    quads = (pairs[:, :-1] << np.uint8(2)) | pairs[:, 1:]
    return (quads[:-1] << np.uint8(4)) | quads[1:]


def _within(
    points: NDArray[np.intp],
    others: NDArray[np.intp],
    shape: tuple[int, int, int],
    spacing: Spacing,
    tolerance_mm: float,
) -> NDArray[np.bool_]:
    """Tell for each of `points` whether one of `others` lies within the tolerance; both are flat lattice positions."""
    reach = [int(tolerance_mm / s) for s in spacing]
    # only a count of writes: the ball itself is built where it is small
    if len(others) * np.prod([2.0 * r + 1 for r in reach]) > MOST_MARKS:
        return _within_by_tree(points, others, shape, spacing, tolerance_mm)
    steps = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1).reshape(-1, 3)
    steps = steps[_length_mm(steps, spacing) <= tolerance_mm]
    padded = tuple(n + 2 * r for n, r in zip(shape, reach, strict=True))
    marked = np.zeros(padded[0] * padded[1] * padded[2], dtype=bool)
    there = _repad(others, shape, padded, reach)
    for step in steps @ np.array([padded[1] * padded[2], padded[2], 1]):
        marked[there + step] = True
    return marked[_repad(points, shape, padded, reach)]


def _repad(
    flat: NDArray[np.intp], shape: tuple[int, int, int], padded: tuple[int, ...], margin: list[int]
) -> NDArray[np.intp]:
    i, j, k = np.unravel_index(flat, shape)
    moved: NDArray[np.intp] = ((i + margin[0]) * padded[1] + (j + margin[1])) * padded[2] + (k + margin[2])
    return moved


def _within_by_tree(
    points: NDArray[np.intp],
    others: NDArray[np.intp],
    shape: tuple[int, int, int],
    spacing: Spacing,
    tolerance_mm: float,
) -> NDArray[np.bool_]:
    here = np.stack(np.unravel_index(points, shape), axis=1)
    there = np.stack(np.unravel_index(others, shape), axis=1)
    _, nearest = cKDTree(there * np.array(spacing)).query(here * np.array(spacing))
    # the tree's own distance differs in the last digit, which decides at a tolerance equal to the distance
    near: NDArray[np.bool_] = _length_mm(here - there[nearest], spacing) <= tolerance_mm
    return near


def _length_mm(steps: NDArray[Any], spacing: Spacing) -> NDArray[np.float64]:
    length: NDArray[np.float64] = np.sqrt(((steps * np.array(spacing)) ** 2).sum(axis=-1))
    return length


@lru_cache(maxsize=32)
def _areas_by_code(spacing: Spacing) -> NDArray[np.float64]:
    """Return the area in mm2 of the surface element of each of the 256 neighbour codes."""
    # MONAI brings torch with it and takes seconds to import; only surface metrics need its table
    from monai.metrics.utils import get_code_to_measure_table

    table, _ = get_code_to_measure_table(spacing)
    return np.asarray(table.numpy(), dtype=np.float64)
