"""The sheet that cleaning rules work on: which class has which region of a scan, and how regions add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datasets_registry.taxonomy import ClassInfo
from imaging.bits import WORD_BITS
from imaging.regions import Regions

Chosen = NDArray[np.bool_]
"""(R,) bool, one a region."""


class Sheet:
    """The classes of one round of cleaning as sets of regions.

    rows: the classes that are cleaned; others are as if they were not there. voxel_ml: volume of a voxel in ml. words:
    (R, W) uint32, the classes of each region as they are now.
    """

    def __init__(self, regions: Regions, rows: Sequence[ClassInfo], voxel_ml: float) -> None:
        self.regions = regions
        self.rows = {row.name: row for row in rows}
        self.voxel_ml = voxel_ml
        self.words = regions.words.copy()
        self._children: dict[str, list[ClassInfo]] = {name: [] for name in self.rows}
        for row in rows:
            for parent in row.parents:
                if parent in self.rows:
                    self._children[parent].append(row)

    def children(self, row: ClassInfo) -> list[ClassInfo]:
        """Return the classes that lie in `row`: an organ's lesions and vessels."""
        return self._children[row.name]

    def of(self, row: ClassInfo) -> Chosen:
        """Return the regions of a class."""
        word, bit = _place(row)
        chosen: Chosen = (self.words[:, word] & bit) != 0
        return chosen

    def own(self, row: ClassInfo) -> Chosen:
        """Return the regions of a class that none of its children has."""
        chosen = self.of(row)
        for child in self.children(row):
            chosen = chosen & ~self.of(child)
        return chosen

    def without(self, rows: Iterable[ClassInfo]) -> Chosen:
        """Return the regions that have a class other than `rows`."""
        left = self.words.copy()
        for row in rows:
            word, bit = _place(row)
            left[:, word] &= ~bit
        return np.asarray(left.any(axis=1), dtype=bool)

    def parts(self, row: ClassInfo) -> Parts:
        """Return the 26-connected parts of a class."""
        return Parts(self.regions, self.of(row))

    def become(self, sets: Mapping[str, Chosen]) -> None:
        """Make each named class exactly the regions given, all at once."""
        for name, chosen in sets.items():
            word, bit = _place(self.rows[name])
            self.words[:, word] = np.where(chosen, self.words[:, word] | bit, self.words[:, word] & ~bit)

    def changes(self, before: NDArray[np.uint32]) -> dict[str, tuple[int, int]]:
        """Return the voxels each class lost and won since its `words` were `before`, where there are any."""
        found = {}
        for name, row in self.rows.items():
            word, bit = _place(row)
            differ = ((before[:, word] ^ self.words[:, word]) & bit) != 0
            if differ.any():
                had = (before[:, word] & bit) != 0
                voxels = self.regions.voxels
                found[name] = (int(voxels[differ & had].sum()), int(voxels[differ & ~had].sum()))
        return found


class Parts:
    """The 26-connected parts of some regions. number: (R,) the part of each, from 1 on, 0 for none; count: parts."""

    def __init__(self, regions: Regions, chosen: Chosen) -> None:
        self.number, self.count = regions.parts(chosen)
        self._voxels = regions.voxels

    def sum(self, among: Chosen | None = None) -> NDArray[np.int64]:
        """Return the voxels of each part, (count + 1,), of those regions that are in `among`; part 0 has none."""
        weights = self._voxels if among is None else self._voxels * among
        total = np.bincount(self.number, weights=weights, minlength=self.count + 1).astype(np.int64)
        total[0] = 0
        return total

    def any(self, regions: Chosen) -> NDArray[np.bool_]:
        """Return which parts, (count + 1,), hold one of `regions`; part 0 does not."""
        found = np.zeros(self.count + 1, dtype=bool)
        found[self.number[regions]] = True
        found[0] = False
        return found

    def regions(self, kept: NDArray[np.bool_]) -> Chosen:
        """Return the regions of the parts that are `kept` (count + 1,); part 0 never is."""
        chosen: Chosen = kept[self.number] & (self.number > 0)
        return chosen


def _place(row: ClassInfo) -> tuple[int, np.uint32]:
    return row.channel // WORD_BITS, np.uint32(1 << row.channel % WORD_BITS)
