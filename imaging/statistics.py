"""Figures of a whole scan, each from one pass over its voxels: HU, and what each class of its bits covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from imaging.bits import Bits, channel_boxes, get_channel
from imaging.components import NO_VOXELS, MaskStatistics, box_slices, crop_statistics
from imaging.volume import Volume


@dataclass(frozen=True)
class HuStatistics:
    """HU over all voxels of a scan; p01, p50 and p99 are percentiles, interpolated linearly between ranks."""

    lowest: float
    highest: float
    mean: float
    p01: float
    p50: float
    p99: float


def hu_statistics(array: NDArray[np.integer[Any]]) -> HuStatistics:
    """Return the figures of integer HU of any shape; ValueError for an empty array."""
    if array.size == 0:
        raise ValueError(f"HU statistics of an array of shape {array.shape}: at least one voxel is needed")
    # a few thousand values occur, so their counts hold all there is to know; transposed, the memory is read in order
    values, counts = fastremap.unique(array.T if array.flags.f_contiguous else array, return_counts=True)
    below = np.cumsum(counts)
    return HuStatistics(
        lowest=float(values[0]),
        highest=float(values[-1]),
        mean=float(values.astype(np.float64) @ counts / array.size),
        p01=_percentile(values, below, 1),
        p50=_percentile(values, below, 50),
        p99=_percentile(values, below, 99),
    )


def _percentile(values: NDArray[np.integer[Any]], below: NDArray[Any], percent: float) -> float:
    """Return a percentile of sorted distinct values, `below` counting the voxels up to and including each."""
    rank = percent / 100 * (int(below[-1]) - 1)
    low, high = (int(values[np.searchsorted(below, int(end), side="right")]) for end in (np.floor(rank), np.ceil(rank)))
    return low + float(rank - np.floor(rank)) * (high - low)


def channel_statistics(bits: Bits, image: Volume, seeds: dict[int, int], sample: int) -> dict[int, MaskStatistics]:
    """Return the figures of each channel in `seeds` (channel -> seed of its sampled voxels), empty channels included.

    bits: (W, X, Y, Z) uint32. image: HU on the same grid. See `components.mask_statistics`.
    """
    if bits.shape[1:] != image.shape:
        raise ValueError(f"class bits of shape {bits.shape[1:]} on an image of shape {image.shape}")
    boxes = channel_boxes(bits)
    found: dict[int, MaskStatistics] = {}
    for channel, seed in seeds.items():
        if channel not in boxes:
            found[channel] = NO_VOXELS
            continue
        box = boxes[channel]
        inner = get_channel(bits[(slice(None), *box_slices(box))], channel)
        found[channel] = crop_statistics(inner, box, image.shape, image.affine, sample, seed, image.array)
    return found
