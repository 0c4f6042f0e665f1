"""Scans as prediction reads them: slab by slab, from memory or from wherever they are stored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.infer_windows import Box, WindowGrid
from models.plan import Int3

AIR_HU = -1024


class Scan(Protocol):
    """A scan of which boxes can be read; the stored arrays of the lake are such."""

    @property
    def shape(self) -> Int3:
        """Voxels along X, Y, Z."""

    def read(self, box: Box) -> NDArray[Any]:
        """Return HU (X, Y, Z) of `box`, slices of X, Y, Z within the scan."""


@dataclass(frozen=True, eq=False)
class ArrayScan:
    """A scan in memory, (X, Y, Z) HU of any real type.

    Raises ValueError for another number of axes, for no voxels and for NaN or infinite ones, of which it names the
    first.
    """

    array: NDArray[Any]

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or 0 in self.array.shape:
            raise ValueError(f"image of shape {self.array.shape}, expected three axes (X, Y, Z) with voxels")
        if self.array.dtype.kind not in "iuf":
            raise ValueError(f"image of type {self.array.dtype}, expected integers or floats, in HU")
        if self.array.dtype.kind == "f":
            _refuse_not_finite(self.array)

    @property
    def shape(self) -> Int3:
        """Voxels along X, Y, Z."""
        x, y, z = self.array.shape
        return (x, y, z)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of `box`, without a copy."""
        return self.array[box]


def _refuse_not_finite(array: NDArray[Any]) -> None:
    count, first = 0, None
    for x, plane in enumerate(array):  # plane by plane, since a mask of the whole scan would take memory
        bad = ~np.isfinite(plane)
        if bad.any():
            count += int(bad.sum())
            first = first or (x, *(int(i) for i in np.argwhere(bad)[0]))
    if first is not None:
        raise ValueError(f"image holds {count} NaN or infinite voxels, the first at {first}; expected finite HU")


def read_slabs(scan: Scan, grid: WindowGrid) -> Iterator[NDArray[Any]]:
    """Yield the voxels of each slab of `grid`, with air around a scan that is smaller than the window.

    Planes that two slabs share are read once.
    """
    before: NDArray[Any] | None = None
    last = 0
    for start in grid.slab_starts:
        stop = start + grid.patch[grid.axis]
        fresh = _planes(scan, grid, max(start, last), stop)
        if before is not None and start < last:
            kept = np.moveaxis(np.moveaxis(before, grid.axis, 0)[start - last :], 0, grid.axis)
            fresh = np.concatenate([kept, fresh], axis=grid.axis)
        yield fresh
        before, last = fresh, stop


def _planes(scan: Scan, grid: WindowGrid, first: int, last: int) -> NDArray[Any]:
    """Return planes `first` to `last` along the grid's axis, both counted with the air around the scan."""
    inside: list[slice] = []
    within: list[slice] = []
    shape = list(grid.shape)
    shape[grid.axis] = last - first
    for axis in range(3):
        origin = grid.before[axis] - (first if axis == grid.axis else 0)  # of the scan, in what is returned
        low = min(max(0, -origin), scan.shape[axis])
        high = max(low, min(scan.shape[axis], shape[axis] - origin))
        inside.append(slice(low, high))
        within.append(slice(low + origin, high + origin))
    found = np.asarray(scan.read((inside[0], inside[1], inside[2])))
    if found.shape == tuple(shape):
        return found
    padded = np.full(shape, AIR_HU, dtype=found.dtype if found.dtype.kind != "u" else np.int32)
    padded[tuple(within)] = found
    return padded


def busy_windows(scan: Scan, grid: WindowGrid, low_hu: float) -> list[tuple[bool, ...]]:
    """Return for each slab, and each of its windows, whether any voxel is above `low_hu`, the model's HU window's end.

    To the network all other windows are the same: every voxel is 0. Each plane is read once.
    """
    patch = grid.patch[grid.axis]
    bounds = sorted({bound for start in grid.slab_starts for bound in (start, start + patch)})
    pieces = list(itertools.pairwise(bounds))
    above = [_planes(scan, grid, first, last).max(axis=grid.axis) > low_hu for first, last in pieces]
    found = []
    for start in grid.slab_starts:
        inside = [own for own, (first, _) in zip(above, pieces, strict=True) if start <= first < start + patch]
        seen = np.logical_or.reduce(inside)  # over the thickness, which every window of the slab shares
        across = [tuple(part for axis, part in enumerate(box) if axis != grid.axis) for box in grid.windows]
        found.append(tuple(bool(seen[box].any()) for box in across))
    return found
