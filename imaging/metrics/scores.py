"""All figures of a class from one set of surface distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.bits import Bits
from imaging.metrics.surface import Spacing


@dataclass(frozen=True)
class MaskScores:
    """Agreement of one predicted mask with the truth; NaN where a figure is undefined.

    dsc: Dice. nsd: surface Dice at the tolerance asked for. hd95_mm: the larger of the two directed 95th percentiles
    of surface distance. asd_mm: mean distance over both surfaces. Surfaces are weighted by area.
    volume_error_ml: predicted_ml - truth_ml.

    | masks | dsc, nsd | hd95_mm, asd_mm |
    | --- | --- | --- |
    | both empty | NaN | NaN |
    | one empty | 0 | NaN |
    """

    dsc: float
    nsd: float
    hd95_mm: float
    asd_mm: float
    volume_error_ml: float
    truth_ml: float
    predicted_ml: float


def score_masks(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing_mm: Spacing, tolerance_mm: float
) -> MaskScores:
    """Return all scores of two masks (X, Y, Z) bool; spacing_mm: X Y Z."""
    raise NotImplementedError


def score_bits(
    truth: Bits,
    predicted: Bits,
    channels: Sequence[int],
    spacing_mm: Spacing,
    tolerance_mm: float | Mapping[int, float],
    *,
    threads: int | None = None,
) -> dict[int, MaskScores]:
    """Return the scores of each of `channels` of two bit volumes (W, X, Y, Z), in the order of `channels`.

    channels: those whose truth is known. A class that nobody annotated is not in there and has no scores.
    spacing_mm: X Y Z. tolerance_mm: of the NSD, one for all or one a channel.
    threads: None for as many as a case may use.
    """
    raise NotImplementedError
