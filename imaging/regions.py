"""Class bits as regions: connected voxels with the same classes, and which regions touch, so that one pass serves all.

The connected parts of any class are groups of touching regions. So parts are counted, moved and removed in small
tables, for all classes at once, and the voxels are passed over twice: to find the regions, and to write the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cc3d
import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from imaging.bits import Bits
from imaging.components import Box, box_slices

Pairs = NDArray[np.uint32]
"""(E, 2) numbers of regions that touch."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a box of a volume, numbered from 1; row 0 of each table stands for no region and is 0.

    box: the part of the volume that is looked at. labels: (x, y, z) of the box, uint32, the region of each voxel.
    words: (R, W) uint32, the classes of each region, 0 for background. voxels: (R,) their size. right: (R,) whether it
    lies right of the middle; no region lies on both sides. on_border: (R,) it has a voxel on a face of the whole
    volume. on_edge: (R,) on a face of the box. touching: pairs of regions with classes that have voxels among each
    other's 26 neighbours. sharing: pairs of any regions that have voxels among each other's 6.
    """

    box: Box
    labels: NDArray[np.uint32]
    words: NDArray[np.uint32]
    voxels: NDArray[np.int64]
    right: NDArray[np.bool_]
    on_border: NDArray[np.bool_]
    on_edge: NDArray[np.bool_]
    touching: Pairs
    sharing: Pairs

    def parts(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
        """Return for each region (R,) the number of the 26-connected part of `chosen` it is in, and their count.

        chosen: (R,), regions with classes only. Numbers begin at 1; 0 for regions that are not chosen.
        """
        return _grouped(chosen, self.touching)

    def cavities(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which regions (R,) `chosen` (R,) encloses: no way through 6-neighbours leads to the box's faces."""
        outside = ~chosen
        outside[0] = False
        numbers, count = _grouped(outside, self.sharing)
        is_open = np.zeros(count + 1, dtype=bool)
        is_open[numbers[self.on_edge]] = True
        is_open[0] = True
        return ~is_open[numbers]


class TooRagged(ValueError):
    """The bits fall into more regions than were allowed."""


def find_regions(
    bits: Bits,
    managed: NDArray[np.uint32],
    box: Box,
    right: NDArray[np.bool_] | None = None,
    *,
    most: int | None = None,
) -> Regions:
    """Return the regions of `bits` (W, X, Y, Z) inside `box`, half-open.

    managed: (W,) the bits that are looked at; others count as unset. right: whether a voxel of the box lies right of
    the middle, broadcast over it; regions are cut there. Beside the bits this takes about 12 bytes a voxel of the box,
    and some hundred for each pair that touches. Raises TooRagged, before pairs are looked for, where there are over
    `most` regions.
    """
    codes, words_of_code = _coded(bits[(slice(None), *box_slices(box))], managed)
    if right is not None:
        codes = codes.astype(np.min_scalar_type(2 * len(words_of_code)), copy=False)
        codes *= codes.dtype.type(2)
        codes += right
        words_of_code = words_of_code.repeat(2, axis=0)
    labels, count = cc3d.connected_components(codes, connectivity=6, return_N=True, out_dtype=np.uint32)
    if most is not None and count > most:
        raise TooRagged(f"{count} regions of equal classes, at most {most} were allowed; look at fewer classes at once")
    code_of = np.zeros(count + 1, dtype=codes.dtype)
    # any voxel of a region serves, they are all alike; transposed, the memory is read in order
    code_of[labels.T if labels.flags.f_contiguous else labels] = codes.T if labels.flags.f_contiguous else codes
    del codes
    words = words_of_code[code_of]
    voxels = np.zeros(count + 1, dtype=np.int64)
    voxels[1:] = fastremap.unique(labels, return_counts=True)[1]
    on_edge, on_border = _at_faces(labels, count, box, bits.shape[1:])
    sharing = _pairs(labels, 6)
    with_classes = words.any(axis=1)
    named = look_up(np.where(with_classes, np.arange(count + 1, dtype=np.uint32), np.uint32(0)), labels)
    sides = code_of % 2 == 1 if right is not None else np.zeros(count + 1, dtype=bool)
    return Regions(box, labels, words, voxels, sides, on_border, on_edge, _pairs(named, 26), sharing)


def look_up(table: NDArray[Any], labels: NDArray[np.uint32]) -> NDArray[Any]:
    """Return table[labels] in the memory order of `labels` (X, Y, Z)."""
    return table[labels.T].T if labels.flags.f_contiguous else table[labels]


def _coded(bits: Bits, managed: NDArray[np.uint32]) -> tuple[NDArray[Any], NDArray[np.uint32]]:
    """Return a number from 1 on for each voxel's combination of managed bits, and the (N + 1, W) words of each."""
    codes: NDArray[Any] | None = None
    words = np.zeros((1, 0), dtype=np.uint32)
    for word, mask in zip(bits, managed, strict=True):
        kept = word if mask == np.iinfo(np.uint32).max else word & mask
        numbers, values = _numbered(kept)
        if codes is None:
            codes, words = numbers, values[:, None].astype(np.uint32)
            continue
        pairs = codes.astype(np.min_scalar_type(len(words) * len(values))) * len(values) + numbers
        codes, found = _numbered(pairs)
        words = np.column_stack([words[found // len(values)], values[found % len(values)].astype(np.uint32)])
    assert codes is not None, "class bits have at least one word"
    return codes, words


def _numbered(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the distinct values numbered from 1 on, at each voxel, and the value of each number; 0 for number 0."""
    numbers, number_of = fastremap.renumber(values, start=1, preserve_zero=False, in_place=False)
    value_of = np.zeros(len(number_of) + 1, dtype=np.int64)
    value_of[list(number_of.values())] = list(number_of)
    return numbers, value_of


def _at_faces(
    labels: NDArray[np.uint32], count: int, box: Box, whole: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which regions have a voxel on a face of the box, and which on a face of the whole volume."""
    on_edge, on_border = np.zeros(count + 1, dtype=bool), np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end, at_border in ((0, box[axis] == 0), (-1, box[axis + 3] == whole[axis])):
            face = np.take(labels, end, axis=axis)
            on_edge[face] = True
            if at_border:
                on_border[face] = True
    return on_edge, on_border


def _pairs(labels: NDArray[np.uint32], connectivity: int) -> Pairs:
    """Return the pairs of labels other than 0 that are neighbours somewhere."""
    found = cc3d.contacts(labels, connectivity=connectivity, surface_area=False)
    return np.array(list(found), dtype=np.uint32).reshape(-1, 2)


def _grouped(chosen: NDArray[np.bool_], pairs: Pairs) -> tuple[NDArray[np.int64], int]:
    """Return for each region the number of its group, chosen regions joined by pairs, from 1 on, and their count."""
    among = np.flatnonzero(chosen)
    place = np.zeros(len(chosen), dtype=np.int64)
    place[among] = np.arange(len(among))
    kept = pairs[chosen[pairs].all(axis=1)]
    graph = coo_array(
        (np.ones(len(kept), dtype=bool), (place[kept[:, 0]], place[kept[:, 1]])), shape=(len(among), len(among))
    )
    count, groups = connected_components(graph, directed=False) if len(among) else (0, np.zeros(0, dtype=np.int32))
    numbers = np.zeros(len(chosen), dtype=np.int64)
    numbers[among] = groups + 1
    return numbers, int(count)
