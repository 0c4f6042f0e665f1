"""Which pixel centres lie inside closed polygons: even-odd rule, exact, one pass over the edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fill_polygons(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels (N0, N1) bool whose centre lies inside an odd number of the polygons' windings.

    polygons: (n, 2) corners in pixel coordinates, closed by itself, pixel (a, b) having its centre at (a, b). Nested
    polygons cancel (a hole), and so do the two coinciding edges of a keyhole. A centre exactly on an edge belongs to
    the polygon where the inside lies towards growing coordinates, so that polygons sharing an edge never share a pixel
    (the half-open rule of scan conversion; Foley et al., Computer Graphics, 1990, section 3.6).
    """
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int32)
    for corners in polygons:
        _add_crossings(crossings, corners, shape)
    inside: NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside


def _add_crossings(crossings: NDArray[np.int32], corners: NDArray[np.float64], shape: tuple[int, int]) -> None:
    """Count, for each line a, the edges that cross it at or before pixel b and after pixel b - 1."""
    start, end = corners, np.roll(corners, -1, axis=0)
    swap = start[:, 0] > end[:, 0]
    low, high = np.where(swap[:, None], end, start), np.where(swap[:, None], start, end)  # (edges, 2) each
    # an edge owns the lines low <= a < high: a corner shared by two edges counts once, a flat edge never
    first = np.clip(np.ceil(low[:, 0]), 0, shape[0]).astype(np.int64)
    last = np.clip(np.ceil(high[:, 0]), 0, shape[0]).astype(np.int64)
    counts = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(corners)), counts)
    line = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    share = (line - low[edge, 0]) / (high[edge, 0] - low[edge, 0])
    place = np.ceil(low[edge, 1] + share * (high[edge, 1] - low[edge, 1]))
    np.add.at(crossings, (line, np.clip(place, 0, shape[1]).astype(np.int64)), 1)
