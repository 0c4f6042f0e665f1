"""Voxels two masks, or each class of two bit volumes, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.bits import Bits


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


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return 2 |a and b| / (|a| + |b|) of two masks (X, Y, Z); nan when both are empty, 0.0 when one is."""
    check_masks(a, b)
    return Overlap(int(np.count_nonzero(a)), int(np.count_nonzero(b)), int(np.count_nonzero(a & b))).dsc


def overlap_bits(truth: Bits, predicted: Bits) -> dict[int, Overlap]:
    """Return the overlap of every channel that is set anywhere in one of two bit volumes (W, X, Y, Z)."""
    raise NotImplementedError


def check_masks(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Refuse what is not two bool masks (X, Y, Z) of one shape."""
    if a.shape != b.shape or a.ndim != 3 or a.dtype != bool or b.dtype != bool:
        raise ValueError(
            f"masks {a.dtype} of shape {a.shape} and {b.dtype} of shape {b.shape}: two bool masks (X, Y, Z) of one "
            "shape are needed"
        )
