"""Anatomy applied to predicted masks: one part where an organ is one part, lesions only in or at their organ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets_registry.taxonomy import ClassInfo, all_classes
from imaging.bits import WORD_BITS, Bits, channel_boxes, clear_channel, get_channel, set_channel
from imaging.components import Box, box_slices, grow, largest_components


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Cleaned bits (W, X, Y, Z), and per class name the voxels taken away and added, where there were any."""

    bits: Bits
    removed: dict[str, int]
    added: dict[str, int]


def clean(
    bits: Bits,
    classes: Sequence[str] | None = None,
    table: Sequence[ClassInfo] | None = None,
    *,
    reach_voxels: int = 2,
) -> Cleaned:
    """Return the masks after three rules, in this order.

    1. A class of which a healthy adult has a known number of parts keeps that many, the largest ones.
    2. A class that lies inside others (a tumour in its organ) keeps what lies within `reach_voxels` of one of them.
       The rule waits where no parent is among `classes`: an organ nobody asked for proves nothing.
    3. What rule 2 keeps also belongs to the parent nearest to it: an organ includes its tumour.
    Each class is worked on in the box around it, so that beside the bits and their copy little memory is taken.
    bits: (W, X, Y, Z), not changed. classes: names that were predicted, None for all. table: the class table.
    """
    rows = [row for row in (table or all_classes()) if classes is None or row.name in classes]
    by_name = {row.name: row for row in rows}
    boxes = channel_boxes(bits)
    result = bits.copy()
    for row in rows:
        if row.components is not None and row.channel in boxes:
            part = _part(result, boxes[row.channel])
            _replace(part, row.channel, largest_components(get_channel(part, row.channel), row.components))
    for row in rows:
        parents = [by_name[name].channel for name in row.parents if name in by_name]
        if parents and row.channel in boxes:
            # what is farther from the lesion than it may reach decides nothing
            near = grow(boxes[row.channel], (reach_voxels,) * 3, (bits.shape[1], bits.shape[2], bits.shape[3]))
            _put_inside(_part(result, near), row.channel, parents, reach_voxels)
    counts = {row.name: _changes(bits, result, row.channel) for row in rows}
    return Cleaned(
        result,
        {name: gone for name, (gone, _) in counts.items() if gone},
        {name: new for name, (_, new) in counts.items() if new},
    )


def _part(bits: Bits, box: Box) -> Bits:
    """Return the box of `bits`, as a view."""
    return bits[(slice(None), *box_slices(box))]


def _put_inside(bits: Bits, channel: int, parents: Sequence[int], reach: int) -> None:
    """Keep of `channel` what is within reach of a parent, and give each voxel of it to the parent nearest; in place."""
    mask = get_channel(bits, channel)
    far = np.iinfo(np.int16).max
    distances = []
    for parent in parents:
        there = get_channel(bits, parent)
        if there.any():
            # chessboard steps: the same for every voxel size, and cheap
            distances.append(ndimage.distance_transform_cdt(~there, metric="chessboard").astype(np.int16))
        else:
            distances.append(np.full(mask.shape, far, dtype=np.int16))
    stacked = np.stack(distances)  # (P, X, Y, Z)
    kept = mask & (stacked.min(axis=0) <= reach)
    nearest = stacked.argmin(axis=0)
    _replace(bits, channel, kept)
    for index, parent in enumerate(parents):
        set_channel(bits, parent, kept & (nearest == index))


def _changes(before: Bits, after: Bits, channel: int) -> tuple[int, int]:
    """Return how many voxels of a channel went and came."""
    word, bit = channel // WORD_BITS, np.uint32(1 << channel % WORD_BITS)
    differ = (before[word] ^ after[word]) & bit
    if not differ.any():
        return 0, 0
    gone = int(np.count_nonzero(differ & before[word]))
    return gone, int(np.count_nonzero(differ)) - gone


def _replace(bits: Bits, channel: int, mask: NDArray[np.bool_]) -> None:
    """Make `channel` exactly `mask`, in place."""
    clear_channel(bits, channel)
    set_channel(bits, channel, mask)
