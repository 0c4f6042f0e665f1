"""Lesions found and lesions made up: connected parts of two masks, matched by overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum
from scipy.sparse import csr_array

from imaging.components import Box, bounding_box, box_slices, label_parts
from imaging.metrics.overlap import check_masks
from imaging.metrics.surface import Spacing, check_spacing


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
    score: NDArray[Any] | None = None,
    *,
    min_ml: float = 0.0,
    min_overlap: float = 0.0,
    accepted: NDArray[np.bool_] | None = None,
) -> LesionMatches:
    """Match the 26-connected parts of two masks (X, Y, Z) bool by overlap.

    spacing_mm: X Y Z. score: (X, Y, Z), probability of the class; a lesion's score is the highest in it.
    min_ml: smaller lesions are not counted, on either side: neither missed, nor found, nor false.
    min_overlap: share of a lesion's voxels, in 0..1, that the predicted lesions must cover; 0 for any voxel.
    accepted: voxels where a predicted lesion is not false (a class that may stand for this one, a region not judged).

    The rule. Which part of a lesion is covered decides (intersection over reference, Maier-Hein et al., Nature Methods
    2024, arXiv 2206.01653); many match many, as in the LiTS evaluation (Bilic et al., arXiv 1901.04056), which joins
    fragments of one lesion, but asks for an intersection over union of 0.5:
    - a lesion is found when all predicted lesions together cover more than 0 and at least `min_overlap` of it;
    - a predicted lesion that covers two lesions finds both and is one predicted lesion;
    - two predicted lesions on one lesion find it once, and neither is false;
    - a predicted lesion is false when it touches no lesion that was found, none too small to count and nothing
      accepted.
    """
    check_masks(truth, predicted)
    check_spacing(spacing_mm)
    _check(truth.shape, score, accepted, min_overlap)
    box = _union_box(truth, predicted)
    if box is None:
        return LesionMatches((), ())
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    inside = box_slices(box)
    truth_parts, truth_count = label_parts(truth[inside])
    predicted_parts, predicted_count = label_parts(predicted[inside])
    truth_sizes = _sizes(truth_parts, truth_count)
    predicted_sizes = _sizes(predicted_parts, predicted_count)
    shared = _shared(truth_parts, predicted_parts, truth_count, predicted_count)

    # a rounding of the volume must not drop a lesion of exactly the minimum
    least = min_ml / voxel_ml * (1 - 1e-9)
    counts, stands = truth_sizes >= least, predicted_sizes >= least
    covered = np.asarray(shared[:, stands].sum(axis=1)) / truth_sizes
    found = counts & (covered > 0) & (covered >= min_overlap * (1 - 1e-9))
    excused = np.asarray(shared[found | ~counts].sum(axis=0)) > 0
    if accepted is not None:
        excused |= _sizes(predicted_parts * accepted[inside], predicted_count) > 0
    scores = np.full(predicted_count, np.nan)
    if score is not None:
        scores = np.asarray(maximum(score[inside], predicted_parts, np.arange(1, predicted_count + 1)), dtype=float)
    touching = shared[counts][:, stands]
    return LesionMatches(
        tuple(
            TruthLesion(float(ml), bool(hit), float(share), matches)
            for ml, hit, share, matches in zip(
                truth_sizes[counts] * voxel_ml, found[counts], covered[counts], _partners(touching), strict=True
            )
        ),
        tuple(
            PredictedLesion(float(ml), float(value), not excuse, matches)
            for ml, value, excuse, matches in zip(
                predicted_sizes[stands] * voxel_ml, scores[stands], excused[stands], _partners(touching.T), strict=True
            )
        ),
    )


def _check(
    shape: tuple[int, ...], score: NDArray[Any] | None, accepted: NDArray[np.bool_] | None, min_overlap: float
) -> None:
    for name, array in (("score", score), ("accepted", accepted)):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} of shape {array.shape} does not fit masks of shape {shape}")
    if not 0 <= min_overlap <= 1:
        raise ValueError(f"min_overlap {min_overlap}: a share between 0 and 1 is needed")


def _union_box(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Box | None:
    boxes = [box for box in (bounding_box(a), bounding_box(b)) if box is not None]
    if not boxes:
        return None
    low, high = np.min(boxes, axis=0)[:3], np.max(boxes, axis=0)[3:]
    return (int(low[0]), int(low[1]), int(low[2]), int(high[0]), int(high[1]), int(high[2]))


def _sizes(parts: NDArray[np.integer[Any]], count: int) -> NDArray[np.int64]:
    """Return the voxels of parts 1..count, (count,)."""
    sizes: NDArray[np.int64] = np.bincount(parts.ravel(order="K"), minlength=count + 1)[1:]
    return sizes


def _shared(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], truth_count: int, predicted_count: int
) -> csr_array:
    """Return how many voxels each pair of parts has in common, (truth_count, predicted_count).

    Sparse: noise has as many parts as voxels, and few of them touch.
    """
    both = (truth > 0) & (predicted > 0)
    rows, columns = truth[both].astype(np.int64) - 1, predicted[both].astype(np.int64) - 1
    ones = np.ones(len(rows), dtype=np.int64)
    return csr_array((ones, (rows, columns)), shape=(truth_count, predicted_count))


def _partners(shared: csr_array) -> list[tuple[int, ...]]:
    """Return for each row the columns that are not 0."""
    rows = csr_array(shared)
    rows.sum_duplicates()
    return [tuple(found.tolist()) for found in np.split(rows.indices, rows.indptr[1:-1])] if rows.shape[0] else []
