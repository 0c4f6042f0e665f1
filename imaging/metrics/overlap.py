"""Voxels two masks, or each class of two bit volumes, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from imaging.bits import WORD_BITS, Bits


@dataclass(frozen=True)
class Overlap:
    """Voxels of one class in the truth, in the prediction and in both."""

    truth: int
    predicted: int
    both: int

    @property
    def dsc(self) -> float:
        """2 both / (truth + predicted); nan when both masks are empty."""
        total = self.truth + self.predicted
        return float("nan") if total == 0 else 2.0 * self.both / total


NO_OVERLAP = Overlap(0, 0, 0)
"""Of a class that is in neither of two volumes."""


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return 2 |a and b| / (|a| + |b|) of two masks (X, Y, Z); nan when both are empty, 0.0 when one is."""
    return overlap_masks(a, b).dsc


def overlap_masks(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Overlap:
    """Return the voxels of two masks (X, Y, Z) bool and those they share."""
    check_masks(truth, predicted)
    both = int(np.count_nonzero(truth & predicted))
    return Overlap(int(np.count_nonzero(truth)), int(np.count_nonzero(predicted)), both)


def overlap_bits(truth: Bits, predicted: Bits) -> dict[int, Overlap]:
    """Return the overlap of every channel that is set anywhere in one of two bit volumes (W, X, Y, Z).

    One pass serves all classes: of the voxels that hold any, each pair of words is counted once for all the places
    where it occurs, since few combinations of classes do.
    """
    if truth.shape != predicted.shape or truth.ndim != 4 or truth.dtype != np.uint32 or predicted.dtype != np.uint32:
        raise ValueError(
            f"bits {truth.dtype} of shape {truth.shape} and {predicted.dtype} of shape {predicted.shape}: two class "
            "bits (W, X, Y, Z) uint32 of one shape are needed"
        )
    overlaps: dict[int, Overlap] = {}
    for index, (word, other) in enumerate(zip(truth, predicted, strict=True)):
        pairs, times = fastremap.unique(_pairs(word, other), return_counts=True)
        sides = np.stack([pairs >> np.uint64(WORD_BITS), pairs & np.uint64(2**WORD_BITS - 1)])
        for bit in range(WORD_BITS):
            of_bit = ((sides >> np.uint64(bit)) & np.uint64(1)).astype(bool)
            if of_bit.any():
                counts = [int(times[chosen].sum()) for chosen in (of_bit[0], of_bit[1], of_bit[0] & of_bit[1])]
                overlaps[index * WORD_BITS + bit] = Overlap(*counts)
    return overlaps


def _pairs(word: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return the words of two volumes (X, Y, Z) side by side, (n,) uint64, at the voxels where one is not 0."""
    axes = np.argsort([-abs(stride) for stride in word.strides], kind="stable")
    found = []
    # plane by plane along the slowest axis: no second copy of the volume
    for a, b in zip(word.transpose(axes), other.transpose(axes), strict=True):
        places = np.flatnonzero(a | b)
        found.append(a.ravel()[places].astype(np.uint64) << np.uint64(WORD_BITS) | b.ravel()[places])
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def check_masks(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Refuse what is not two bool masks (X, Y, Z) of one shape."""
    if a.shape != b.shape or a.ndim != 3 or a.dtype != bool or b.dtype != bool:
        raise ValueError(
            f"masks {a.dtype} of shape {a.shape} and {b.dtype} of shape {b.shape}: two bool masks (X, Y, Z) of one "
            "shape are needed"
        )
