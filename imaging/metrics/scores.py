"""All figures of a class from one set of surface distances.

Masks without a voxel have no surface. What that means for each figure is stated in `MaskScores`: NaN for two empty
masks and 0 for one, as the surface-distance package defines the DSC and MONAI the surface Dice. A class that nobody
annotated has no truth: it is not scored at all, which is another answer than the NaN of an empty mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imaging.bits import WORD_BITS, Bits, channel_boxes
from imaging.components import Box, bounding_box, box_slices
from imaging.metrics.distances import nearest_mm
from imaging.metrics.overlap import NO_OVERLAP, Overlap, check_masks, overlap_bits, overlap_masks
from imaging.metrics.surface import Part, Spacing, Surface, check_spacing, surfaces
from imaging.threads import case_threads

NAN = float("nan")
HD_SHARE = 0.95
SAME_SHARE = 1e-9
"""Shares of area closer than this are one: adding areas up in another order changes the last digits."""


@dataclass(frozen=True)
class MaskScores:
    """Agreement of one predicted mask with the truth; NaN where a figure is undefined.

    dsc: Dice, 2 |both| / (|truth| + |predicted|).
    nsd: share of both surfaces within the tolerance of the other one (surface Dice, Nikolov et al., arXiv 1809.04430).
    hd95_mm: the larger of the two directed 95th percentiles of surface distance.
    asd_mm: mean distance over both surfaces together (in the literature also ASSD).
    All three weight each surface element by its area and measure from element centre to element centre, as the
    surface-distance package does; there the mean comes as two directed ones.
    volume_error_ml: predicted_ml - truth_ml.

    | masks | dsc, nsd | hd95_mm, asd_mm | volumes |
    | --- | --- | --- | --- |
    | both empty | NaN: nothing to agree on, never 1 | NaN | 0 |
    | one empty | 0 | NaN: no distance to nothing (surface-distance: inf) | as they are |
    | class not annotated | no scores: leave it out of `channels` | | |

    Whoever takes a mean says over how many cases it is: those of HD95 and ASD are over fewer than those of DSC and NSD.
    """

    dsc: float
    nsd: float
    hd95_mm: float
    asd_mm: float
    volume_error_ml: float
    truth_ml: float
    predicted_ml: float


def surface_dice(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Return the `nsd` of `MaskScores` alone, which needs no distance above the tolerance and so takes less time.

    a, b: (X, Y, Z) bool. spacing_mm: X Y Z. nan when both masks are empty, 0.0 when one is.
    """
    check_masks(a, b)
    check_spacing(spacing_mm)
    _check_tolerance(tolerance_mm)
    box_a, box_b = bounding_box(a), bounding_box(b)
    if box_a is None or box_b is None:
        return NAN if box_a is None and box_b is None else 0.0
    parts = Part(a[box_slices(box_a)], box_a), Part(b[box_slices(box_b)], box_b)
    one, other, to_other, to_one = _distances(*parts, spacing_mm, tolerance_mm, limit_mm=tolerance_mm)
    return _share_within(one, other, to_other, to_one, tolerance_mm)


def score_masks(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing_mm: Spacing, tolerance_mm: float
) -> MaskScores:
    """Return all scores of two masks (X, Y, Z) bool; spacing_mm: X Y Z. tolerance_mm: of the NSD."""
    check_spacing(spacing_mm)
    _check_tolerance(tolerance_mm)
    overlap = overlap_masks(truth, predicted)
    parts = [
        None if box is None else Part(mask[box_slices(box)], box)
        for mask, box in ((truth, bounding_box(truth)), (predicted, bounding_box(predicted)))
    ]
    return _scores(overlap, parts[0], parts[1], spacing_mm, tolerance_mm)


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
    check_spacing(spacing_mm)
    tolerances = _tolerances(channels, tolerance_mm)
    unknown = [c for c in channels if not 0 <= c < len(truth) * WORD_BITS]
    if unknown:
        raise ValueError(f"channels {unknown} outside the {len(truth) * WORD_BITS} channels of the bits")
    overlaps = overlap_bits(truth, predicted)
    boxes = [channel_boxes(bits) for bits in (truth, predicted)]

    def one(channel: int) -> MaskScores:
        parts = [_part(bits, box.get(channel), channel) for bits, box in zip((truth, predicted), boxes, strict=True)]
        return _scores(overlaps.get(channel, NO_OVERLAP), parts[0], parts[1], spacing_mm, tolerances[channel])

    # the largest first, so that no thread is left alone with it
    order = sorted(channels, key=lambda c: -sum(_corners(box.get(c)) for box in boxes))
    with ThreadPoolExecutor(threads or case_threads()) as executor:
        scored = dict(zip(order, executor.map(one, order), strict=True))
    return {channel: scored[channel] for channel in channels}


def _part(bits: Bits, box: Box | None, channel: int) -> Part | None:
    if box is None:
        return None
    word, bit = divmod(channel, WORD_BITS)
    return Part((bits[word][box_slices(box)] & np.uint32(1 << bit)) != 0, box)


def _corners(box: Box | None) -> int:
    return 0 if box is None else (box[3] - box[0]) * (box[4] - box[1]) * (box[5] - box[2])


def _scores(
    overlap: Overlap, truth: Part | None, predicted: Part | None, spacing_mm: Spacing, tolerance_mm: float
) -> MaskScores:
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    ml = (overlap.truth * voxel_ml, overlap.predicted * voxel_ml)
    volumes = (ml[1] - ml[0], ml[0], ml[1])
    if truth is None or predicted is None:
        return MaskScores(overlap.dsc, NAN if truth is predicted else 0.0, NAN, NAN, *volumes)
    one, other, to_other, to_one = _distances(truth, predicted, spacing_mm, tolerance_mm)
    area = one.areas.sum() + other.areas.sum()
    return MaskScores(
        overlap.dsc,
        _share_within(one, other, to_other, to_one, tolerance_mm),
        max(_percentile(to_other, one.areas), _percentile(to_one, other.areas)),
        float((to_other @ one.areas + to_one @ other.areas) / area),
        *volumes,
    )


def _distances(
    a: Part, b: Part, spacing_mm: Spacing, tolerance_mm: float, limit_mm: float = float("inf")
) -> tuple[Surface, Surface, NDArray[np.float64], NDArray[np.float64]]:
    """Return both surfaces, and from each element of the one and of the other the way to the other surface, in mm."""
    one, other, lattice = surfaces(a, b, spacing_mm)
    to = partial(nearest_mm, lattice=lattice, exact_mm=tolerance_mm, limit_mm=limit_mm)
    return one, other, to(one.places, other.places), to(other.places, one.places)


def _share_within(
    one: Surface, other: Surface, to_other: NDArray[np.float64], to_one: NDArray[np.float64], tolerance_mm: float
) -> float:
    near = one.areas[to_other <= tolerance_mm].sum() + other.areas[to_one <= tolerance_mm].sum()
    return float(near / (one.areas.sum() + other.areas.sum()))


def _percentile(distances: NDArray[np.float64], areas: NDArray[np.float64]) -> float:
    """Return the least distance within which `HD_SHARE` of the area lies."""
    order = np.argsort(distances)
    share = np.cumsum(areas[order])
    place = np.searchsorted(share, (HD_SHARE - SAME_SHARE) * share[-1])
    return float(distances[order[min(int(place), len(order) - 1)]])


def _tolerances(channels: Sequence[int], tolerance_mm: float | Mapping[int, float]) -> Mapping[int, float]:
    tolerances = tolerance_mm if isinstance(tolerance_mm, Mapping) else dict.fromkeys(channels, tolerance_mm)
    for channel in channels:
        if channel not in tolerances:
            raise ValueError(f"tolerance_mm has no tolerance for channel {channel}; it has {sorted(tolerances)}")
        _check_tolerance(tolerances[channel])
    return tolerances


def _check_tolerance(tolerance_mm: float) -> None:
    if not 0 <= tolerance_mm < float("inf"):
        raise ValueError(f"tolerance_mm {tolerance_mm}: a number of mm >= 0 is needed")
