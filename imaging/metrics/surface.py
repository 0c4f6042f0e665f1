"""Surfaces of two masks in one lattice: where their elements are and what area each has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imaging.components import Box

Spacing = tuple[float, float, float]
Shape = tuple[int, int, int]
Axes = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Part:
    """A mask of which only a box is kept. mask: (X, Y, Z) bool inside `box`, which is half-open, in voxels."""

    mask: NDArray[np.bool_]
    box: Box


@dataclass(frozen=True, eq=False)
class Surface:
    """Surface elements of a mask. places: (n,) flat positions in the lattice. areas: (n,) mm2."""

    places: NDArray[np.intp]
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class Lattice:
    """Corners of voxels around two masks; each axis has one more of them than voxels. Axes as the masks lie in memory.

    shape: corners along each axis. spacing_mm: between them.
    """

    shape: Shape
    spacing_mm: Spacing


def surfaces(a: Part, b: Part, spacing_mm: Spacing) -> tuple[Surface, Surface, Lattice]:
    """Return the surfaces of two masks that are not empty, and the lattice both lie in: that of the boxes' union.

    The surface runs between voxel centres: each 2 x 2 x 2 neighbourhood that is neither full nor empty is one surface
    element, with the area of its marching-cubes triangles, as in Nikolov et al., arXiv 1809.04430.
    """
    check_spacing(spacing_mm)
    order = np.argsort([-abs(stride) for stride in a.mask.strides], kind="stable")
    axes = (int(order[0]), int(order[1]), int(order[2]))
    low = [min(a.box[axis], b.box[axis]) for axis in axes]
    high = [max(a.box[axis + 3], b.box[axis + 3]) for axis in axes]
    shape = (high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1)
    areas = areas_by_code((float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])), axes)
    found = [_elements(part, axes, low, shape, areas) for part in (a, b)]
    ordered = (float(spacing_mm[axes[0]]), float(spacing_mm[axes[1]]), float(spacing_mm[axes[2]]))
    return found[0], found[1], Lattice(shape, ordered)


def check_spacing(spacing_mm: Spacing) -> None:
    """Refuse a spacing that is not three positive numbers."""
    if len(spacing_mm) != 3 or not all(0 < value < float("inf") for value in spacing_mm):
        raise ValueError(f"spacing_mm {spacing_mm}: three positive numbers are needed, in mm along X, Y, Z")


def _elements(part: Part, axes: Axes, low: list[int], shape: Shape, areas: NDArray[np.float64]) -> Surface:
    """Return the surface elements of one mask; codes are only computed inside its own box.

    Lattice point (i, j, k) is the corner shared by voxels i-1..i, j-1..j, k-1..k.
    """
    codes = _neighbour_codes(part.mask.transpose(axes))
    hits = np.flatnonzero((codes + np.uint8(1)) > 1)  # 255 wraps to 0: neither empty nor full
    i, j, k = np.unravel_index(hits, codes.shape)
    start = [part.box[axis] - first for axis, first in zip(axes, low, strict=True)]
    places = ((i + start[0]) * shape[1] + (j + start[1])) * shape[2] + (k + start[2])
    return Surface(places, areas[codes.ravel()[hits]])


def _neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return (X+1, Y+1, Z+1) uint8: bit by bit which of the 8 voxels around each corner are set.

    Bits by (x, y, z) side, lower side first: 128 64 32 16 | 8 4 2 1. Built by doubling, one axis at a time.
    """
    padded = np.zeros([n + 2 for n in mask.shape], dtype=np.uint8)
    padded[1:-1, 1:-1, 1:-1] = mask
    pairs = (padded[:, :, :-1] << np.uint8(1)) | padded[:, :, 1:]
    quads = (pairs[:, :-1] << np.uint8(2)) | pairs[:, 1:]
    return (quads[:-1] << np.uint8(4)) | quads[1:]


@lru_cache(maxsize=64)
def areas_by_code(spacing_mm: Spacing, axes: Axes = (0, 1, 2)) -> NDArray[np.float64]:
    """Return the area in mm2 of the surface element of each of the 256 neighbour codes of a mask with axes in `axes`.

    spacing_mm: X Y Z. Same areas as the surface-distance package has.
    """
    x, y, z = spacing_mm
    areas: NDArray[np.float64] = np.linalg.norm(_area_vectors() * (y * z, x * z, x * y), axis=2).sum(axis=1)
    # the vectors know codes by X, Y, Z: the corners of each code are put back in that order
    corners = ((np.arange(256)[:, None] >> np.arange(7, -1, -1)) & 1).reshape(256, 2, 2, 2)
    straight = corners.transpose(0, *(1 + int(place) for place in np.argsort(axes)))
    codes: NDArray[np.intp] = straight.reshape(256, 8) @ (1 << np.arange(7, -1, -1))
    return areas[codes]


@lru_cache(maxsize=1)
def _area_vectors() -> NDArray[np.float64]:
    """Return the normals of the triangles of each neighbour code, as long as their areas at unit spacing, (256, 5, 3).

    Lorensen's marching cubes, which has at most 5 triangles. Where a code is ambiguous it differs from its complement;
    the surface is then that of the fewer corners, as in the table of surface-distance.
    """
    from skimage.measure import marching_cubes  # brings pieces of scikit-image that only surface metrics need

    vectors = np.zeros((256, 5, 3))
    for code in range(1, 255):
        corners = ((code >> np.arange(7, -1, -1)) & 1).reshape(2, 2, 2)
        if corners.sum() > 4:
            corners = 1 - corners
        vertices, faces, _, _ = marching_cubes(corners.astype(float), 0.5, method="lorensen")
        one, two, three = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
        vectors[code, : len(faces)] = np.cross(two - one, three - one) / 2
    return vectors
