"""Overlapping classes as label maps: which classes share a voxel, and layers in which none do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.bits import WORD_BITS, Bits, get_channel

PLANES = 16
"""Planes of the last axis looked at together."""


def overlaps(bits: Bits, channels: Sequence[int]) -> set[tuple[int, int]]:
    """Return the pairs (lower, higher) of `channels` that share a voxel of the bits (W, X, Y, Z)."""
    wanted = sorted(channels)
    shared: set[tuple[int, int]] = set()
    for start in range(0, bits.shape[3], PLANES):
        part = bits[:, :, :, start : start + PLANES].reshape(bits.shape[0], -1)
        # few distinct combinations of classes occur; a voxel of one class or none says nothing
        several = np.bitwise_count(part).sum(axis=0) > 1
        for combination in np.unique(part[:, several], axis=1).T:
            there = [c for c in wanted if combination[c // WORD_BITS] >> np.uint32(c % WORD_BITS) & np.uint32(1)]
            shared.update((a, b) for i, a in enumerate(there) for b in there[i + 1 :])
    return shared


def split_layers(bits: Bits, channels: Sequence[int]) -> list[list[int]]:
    """Return `channels` in as few layers as taking them one after the other gives, none overlapping within a layer.

    The first layer takes the first channels given; each further one those that did not fit before. No channels: none.
    """
    shared = overlaps(bits, channels)
    layers: list[list[int]] = []
    for channel in channels:
        for layer in layers:
            if not any((min(channel, other), max(channel, other)) in shared for other in layer):
                layer.append(channel)
                break
        else:
            layers.append([channel])
    return layers


def paint(bits: Bits, values: Mapping[int, int]) -> NDArray[Any]:
    """Return one label a voxel, (X, Y, Z) in the order of files: the value of its channel, 0 for none.

    values: channel -> value, painted in this order, so that a later one covers an earlier one. uint8 where the values
    fit, else uint16.
    """
    kind = np.uint8 if max(values.values(), default=0) <= np.iinfo(np.uint8).max else np.uint16
    label = np.zeros(bits.shape[:0:-1], dtype=kind).T
    for channel, value in values.items():
        label[get_channel(bits, channel)] = value
    return label
