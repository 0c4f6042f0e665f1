"""From each element of one surface, the distance to the nearest element of another one: exact, and cheap where near."""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from imaging.metrics.surface import Lattice, Shape, Spacing
from imaging.threads import case_threads

MOST_STEPS = 1000
"""Neighbours looked at one by one around each element, nearest first: 6 lattice points away where spacing is even."""
LOOKS_PER_CORNER = 4
"""Looks at neighbours, per corner of the lattice, after which a distance transform of what is left costs less."""
CORNERS_PER_SEARCH = 1000
"""Corners that the distance transform does in the time in which a tree finds the nearest of one far element."""
LARGE = 2**23
"""Corners of a box above which one transform at a time has all threads: it takes about 10 bytes a corner."""
TRANSFORM_ERROR = 1e-5
"""Bound of the relative error of the distance transform, which works in float32 (measured: under 1e-6)."""

_one_large_transform = Lock()


def nearest_mm(
    places: NDArray[np.intp],
    others: NDArray[np.intp],
    lattice: Lattice,
    *,
    exact_mm: float | None = None,
    limit_mm: float = float("inf"),
) -> NDArray[np.float64]:
    """Return the distance in mm from each of `places` to the nearest of `others`, both flat positions in the lattice.

    Exact in float64 up to some lattice points away, where few elements are farther, and where a distance could be
    taken for another side of `exact_mm`; elsewhere to a relative 1e-6. limit_mm: distances above are of no interest
    and may be inf.
    others: at least one.
    """
    near, left = _look_around(places, others, lattice, limit_mm)
    if not len(left):
        return near
    low, high = _part_that_matters(places[left], others, lattice)
    if len(left) * CORNERS_PER_SEARCH <= np.prod(high - low):
        near[left] = _by_tree(places[left], others, lattice)
        return near
    near[left] = _transformed(places[left], others, lattice, low, high)
    if exact_mm is not None:
        unsure = left[np.abs(near[left] - exact_mm) <= TRANSFORM_ERROR * exact_mm]
        if len(unsure):
            near[unsure] = _by_tree(places[unsure], others, lattice)
    return near


def _look_around(
    places: NDArray[np.intp], others: NDArray[np.intp], lattice: Lattice, limit_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the distances found among the nearest neighbours, inf where none is, and which may be found elsewhere."""
    steps, lengths, reach = _steps(lattice.spacing_mm)
    padded = tuple(n + 2 * r for n, r in zip(lattice.shape, reach, strict=True))
    marked = np.zeros(padded[0] * padded[1] * padded[2], dtype=bool)
    marked[_repad(others, lattice.shape, padded, reach)] = True
    here = _repad(places, lattice.shape, padded, reach)
    if len(marked) < 2**31:
        here = here.astype(np.int32)
    near = np.full(len(places), np.inf)
    left = np.arange(len(places))
    looks = LOOKS_PER_CORNER * len(marked)
    for step, length in zip(steps @ np.array([padded[1] * padded[2], padded[2], 1]), lengths, strict=True):
        if length > limit_mm:
            return near, left[:0]
        looks -= len(left)
        if looks < 0:
            break
        hit = marked[here + here.dtype.type(step)]
        if hit.any():
            near[left[hit]] = length
            left, here = left[~hit], here[~hit]
            if not len(left):
                break
    return near, left


@lru_cache(maxsize=32)
def _steps(spacing_mm: Spacing) -> tuple[NDArray[np.intp], NDArray[np.float64], tuple[int, int, int]]:
    """Return the steps (n, 3) to lattice points around one, nearest first, their lengths in mm, the reach by axis."""
    volume = float(np.prod(spacing_mm))
    radius = (MOST_STEPS * volume * 3 / (4 * np.pi)) ** (1 / 3)  # of a ball that holds about MOST_STEPS points
    most = [min(int(radius / spacing), MOST_STEPS) for spacing in spacing_mm]
    steps = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in most], indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = _length_mm(steps, spacing_mm)
    kept = np.argsort(lengths, kind="stable")[: int(np.count_nonzero(lengths <= radius))]
    reach = np.abs(steps[kept]).max(axis=0)
    return steps[kept], lengths[kept], (int(reach[0]), int(reach[1]), int(reach[2]))


def _repad(
    flat: NDArray[np.intp], shape: Shape, padded: tuple[int, ...], margin: tuple[int, int, int]
) -> NDArray[np.intp]:
    i, j, k = np.unravel_index(flat, shape)
    moved: NDArray[np.intp] = ((i + margin[0]) * padded[1] + (j + margin[1])) * padded[2] + (k + margin[2])
    return moved


def _part_that_matters(
    places: NDArray[np.intp], others: NDArray[np.intp], lattice: Lattice
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first and the last (exclusive) corner of the box that holds `places` and the nearest to each."""
    here = np.stack(np.unravel_index(places, lattice.shape))  # (3, n)
    there = np.stack(np.unravel_index(others, lattice.shape))
    low, high = here.min(axis=1), here.max(axis=1)
    middle = (low + high) // 2
    # no element is farther from the others than the middle is, plus its way to the middle
    farthest = _length_mm((there - middle[:, None]).T, lattice.spacing_mm).min()
    farthest += _length_mm((high - low + 1)[None], lattice.spacing_mm)[0]
    grown = np.ceil(farthest / np.array(lattice.spacing_mm)).astype(np.intp)
    return np.maximum(low - grown, 0), np.minimum(high + grown + 1, lattice.shape)


def _transformed(
    places: NDArray[np.intp],
    others: NDArray[np.intp],
    lattice: Lattice,
    low: NDArray[np.intp],
    high: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return the distances read from a distance transform of a box of the lattice."""
    here = np.stack(np.unravel_index(places, lattice.shape)) - low[:, None]
    there = np.stack(np.unravel_index(others, lattice.shape)) - low[:, None]
    there = there[:, np.all((there >= 0) & (there < (high - low)[:, None]), axis=0)]
    large = bool(np.prod(high - low) > LARGE)
    with _one_large_transform if large else nullcontext():
        free = np.ones(high - low, dtype=np.uint8)
        free[tuple(there)] = 0
        threads = case_threads() if large else 1
        distance = edt.edt(free, anisotropy=lattice.spacing_mm, parallel=threads)
        found: NDArray[np.float64] = distance[tuple(here)].astype(np.float64)
    return found


def _by_tree(places: NDArray[np.intp], others: NDArray[np.intp], lattice: Lattice) -> NDArray[np.float64]:
    here = np.stack(np.unravel_index(places, lattice.shape), axis=1)
    there = np.stack(np.unravel_index(others, lattice.shape), axis=1)
    _, nearest = cKDTree(there * np.array(lattice.spacing_mm)).query(here * np.array(lattice.spacing_mm))
    # the tree's own distance differs in the last digit, which decides at a tolerance equal to the distance
    return _length_mm(here - there[nearest], lattice.spacing_mm)


def _length_mm(steps: NDArray[Any], spacing_mm: Spacing) -> NDArray[np.float64]:
    length: NDArray[np.float64] = np.sqrt(((steps * np.array(spacing_mm)) ** 2).sum(axis=-1))
    return length
