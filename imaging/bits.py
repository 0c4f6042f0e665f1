"""Class bits: overlapping masks of many classes packed into uint32 words.

Channel c lives in word c // 32, bit c % 32. In memory the words lead: (W, X, Y, Z) uint32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import fastremap
import numpy as np
from numpy.typing import NDArray

from imaging.components import Box

Bits = NDArray[np.uint32]
"""(W, X, Y, Z) uint32, channel c in word c // 32, bit c % 32."""

WORD_BITS = 32


def words_for(n_classes: int) -> int:
    """Return how many 32-bit words hold `n_classes` channels; at least one class is needed."""
    if n_classes < 1:
        raise ValueError(f"class bits of {n_classes} classes: at least 1 is needed")
    return -(-n_classes // WORD_BITS)


def empty_bits(shape: Sequence[int], n_classes: int, order: Literal["C", "F"] = "C") -> Bits:
    """Return all-zero bits (W, *shape) for `n_classes` channels; shape is (X, Y, Z) in voxels.

    order: memory order of the three spatial axes. Bits and masks of one order combine several times faster: "F" suits
    masks that come from files and the lake, "C" those that come from a network.
    """
    words = words_for(n_classes)
    if order == "F":
        return np.zeros((words, *reversed(shape)), dtype=np.uint32).transpose(0, 3, 2, 1)
    return np.zeros((words, *shape), dtype=np.uint32)


def widened(bits: Bits, n_classes: int) -> Bits:
    """Return `bits` (W, X, Y, Z) with words for at least `n_classes`; bits that have them are returned as they are.

    Masks stored before the class table grew have fewer words than those made today.
    """
    missing = words_for(n_classes) - len(bits)
    if missing <= 0:
        return bits
    return np.concatenate([bits, np.zeros((missing, *bits.shape[1:]), dtype=np.uint32)])


def set_channel(bits: Bits, channel: int, mask: NDArray[np.bool_]) -> None:
    """Set `channel` where `mask` (X, Y, Z) is true, in place; voxels already set stay set."""
    word, bit = _address(bits, channel)
    if mask.shape != bits.shape[1:]:
        raise ValueError(f"mask of shape {mask.shape} does not fit bits of shape {bits.shape}")
    plane = bits[word]
    np.bitwise_or(plane, np.uint32(1) << bit, out=plane, where=mask.astype(bool, copy=False))


def clear_channel(bits: Bits, channel: int) -> None:
    """Unset `channel` everywhere, in place."""
    word, bit = _address(bits, channel)
    bits[word] &= ~(np.uint32(1) << bit)


def get_channel(bits: Bits, channel: int) -> NDArray[np.bool_]:
    """Return the mask (X, Y, Z) of one channel."""
    word, bit = _address(bits, channel)
    selected: NDArray[np.bool_] = (bits[word] & (np.uint32(1) << bit)) != 0
    return selected


def pack(masks: NDArray[np.bool_]) -> Bits:
    """Return the bits (W, X, Y, Z) of masks (C, X, Y, Z), channel c = masks[c], in the masks' memory order."""
    order: Literal["C", "F"] = "F" if abs(masks.strides[1]) < abs(masks.strides[3]) else "C"
    bits = empty_bits(masks.shape[1:], masks.shape[0], order)
    for channel, mask in enumerate(masks):
        set_channel(bits, channel, mask)
    return bits


def channel_boxes(bits: Bits) -> dict[int, Box]:
    """Return the half-open box x0, y0, z0, x1, y1, z1 around each channel that is set anywhere, in voxels.

    One pass serves all channels: the words are or-ed along the axes, and a channel's bit stays where it occurred.
    """
    boxes: dict[int, Box] = {}
    for index, word in enumerate(bits):
        slow = int(np.argmax(np.abs(word.strides)))
        plane = np.bitwise_or.reduce(word, axis=slow)  # reading in memory order leaves a small plane
        other = [axis for axis in range(3) if axis != slow]
        along = {axis: np.bitwise_or.reduce(plane, axis=1 - place) for place, axis in enumerate(other)}
        along[slow] = np.bitwise_or.reduce(word, axis=tuple(other))
        present = int(np.bitwise_or.reduce(plane, axis=None))
        for bit in (bit for bit in range(WORD_BITS) if present >> bit & 1):
            hits = [np.flatnonzero(along[axis] >> np.uint32(bit) & np.uint32(1)) for axis in range(3)]
            first = [int(hit[0]) for hit in hits]
            last = [int(hit[-1]) + 1 for hit in hits]
            boxes[index * WORD_BITS + bit] = (first[0], first[1], first[2], last[0], last[1], last[2])
    return boxes


def count_voxels(bits: Bits, n_classes: int) -> NDArray[np.int64]:
    """Return the voxels set in each channel, (C,) int64."""
    if n_classes > bits.shape[0] * WORD_BITS:
        raise ValueError(f"{bits.shape[0]} words hold {bits.shape[0] * WORD_BITS} channels, asked for {n_classes}")
    counts = np.zeros(bits.shape[0] * WORD_BITS, dtype=np.int64)
    shifts = np.arange(WORD_BITS, dtype=np.uint32)
    for index, word in enumerate(bits):
        # few distinct combinations of classes occur, so one pass over the voxels serves all 32 channels
        values, times = fastremap.unique(np.ascontiguousarray(word.T), return_counts=True)
        set_bits = (values[:, None] >> shifts) & np.uint32(1)  # (distinct, 32)
        counts[index * WORD_BITS : (index + 1) * WORD_BITS] = (set_bits * times[:, None].astype(np.int64)).sum(axis=0)
    return counts[:n_classes]


def _address(bits: Bits, channel: int) -> tuple[int, np.uint32]:
    if bits.dtype != np.uint32 or bits.ndim != 4:
        raise ValueError(f"class bits are (W, X, Y, Z) uint32, got {bits.dtype} of shape {bits.shape}")
    if not 0 <= channel < bits.shape[0] * WORD_BITS:
        raise ValueError(f"channel {channel} outside the {bits.shape[0] * WORD_BITS} channels of {bits.shape[0]} words")
    return channel // WORD_BITS, np.uint32(channel % WORD_BITS)
