"""Lesions found and lesions made up: connected parts of two masks, matched by overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.metrics.surface import Spacing


@dataclass(frozen=True)
class TruthLesion:
    """A lesion of the truth. ml: its volume. found: enough of it is predicted. covered: share of its voxels predicted.

    matches: positions in `LesionMatches.predicted` of the lesions that touch it.
    """

    ml: float
    found: bool
    covered: float
    matches: tuple[int, ...]


@dataclass(frozen=True)
class PredictedLesion:
    """A predicted lesion. score: highest value of the score map in it, NaN without a map.

    false_positive: it belongs to no lesion that was found, nor to one that is not counted.
    matches: positions in `LesionMatches.truth` of the lesions it touches.
    """

    ml: float
    score: float
    false_positive: bool
    matches: tuple[int, ...]


@dataclass(frozen=True)
class LesionMatches:
    """Lesions of one class in one case, those too small to count left out."""

    truth: tuple[TruthLesion, ...]
    predicted: tuple[PredictedLesion, ...]

    @property
    def lesions(self) -> int:
        """Lesions of the truth."""
        return len(self.truth)

    @property
    def lesions_found(self) -> int:
        """Lesions of the truth that were found: true positives; the others are false negatives."""
        return sum(lesion.found for lesion in self.truth)

    @property
    def false_lesions(self) -> int:
        """Predicted lesions where there is none: false positives."""
        return sum(lesion.false_positive for lesion in self.predicted)

    @property
    def lesion_score(self) -> float:
        """Highest score of a predicted lesion, for the ROC over patients; 0 without one, NaN without a score map."""
        return max((lesion.score for lesion in self.predicted), default=0.0)


def match_lesions(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    spacing_mm: Spacing,
    score: NDArray[np.floating] | NDArray[np.integer] | None = None,
    *,
    min_ml: float = 0.0,
    min_overlap: float = 0.0,
    accepted: NDArray[np.bool_] | None = None,
) -> LesionMatches:
    """Match the 26-connected parts of two masks (X, Y, Z) bool by overlap.

    score: (X, Y, Z), probability of the class. min_ml: smaller lesions are not counted, on either side.
    min_overlap: share of a lesion's voxels that must be predicted, 0 for any voxel.
    accepted: voxels where a predicted lesion is not false (a class that may stand for this one).
    """
    raise NotImplementedError
