"""Anatomy applied to predicted masks: one part where an organ is one part, lesions only in or at their organ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets_registry.taxonomy import ClassInfo, all_classes
from imaging.bits import Bits, get_channel, set_channel
from imaging.components import largest_components


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
    bits: (W, X, Y, Z), not changed. classes: names that were predicted, None for all. table: the class table.
    """
    rows = [row for row in (table or all_classes()) if classes is None or row.name in classes]
    by_name = {row.name: row for row in rows}
    before = {row.name: get_channel(bits, row.channel) for row in rows}
    masks = dict(before)
    for row in rows:
        if row.components is not None and masks[row.name].any():
            masks[row.name] = largest_components(masks[row.name], row.components)
    for row in rows:
        parents = [name for name in row.parents if name in by_name]
        if parents and masks[row.name].any():
            masks[row.name], additions = _inside(masks[row.name], [masks[name] for name in parents], reach_voxels)
            for name, addition in zip(parents, additions, strict=True):
                masks[name] = masks[name] | addition
    result = bits.copy()
    for row in rows:
        _replace(result, row.channel, masks[row.name])
    counts = {
        name: (int((before[name] & ~masks[name]).sum()), int((masks[name] & ~before[name]).sum())) for name in masks
    }
    return Cleaned(
        result,
        {name: gone for name, (gone, _) in counts.items() if gone},
        {name: new for name, (_, new) in counts.items() if new},
    )


def _inside(
    mask: NDArray[np.bool_], parents: list[NDArray[np.bool_]], reach: int
) -> tuple[NDArray[np.bool_], list[NDArray[np.bool_]]]:
    """Return the part of `mask` within reach of a parent, and the voxels of it that each parent gains if nearest."""
    far = np.iinfo(np.int16).max
    distances = []
    for parent in parents:
        if parent.any():
            # chessboard steps: the same for every voxel size, and cheap
            distances.append(ndimage.distance_transform_cdt(~parent, metric="chessboard").astype(np.int16))
        else:
            distances.append(np.full(mask.shape, far, dtype=np.int16))
    stacked = np.stack(distances)  # (P, X, Y, Z)
    kept = mask & (stacked.min(axis=0) <= reach)
    nearest = stacked.argmin(axis=0)
    return kept, [kept & (nearest == index) & ~parent for index, parent in enumerate(parents)]


def _replace(bits: Bits, channel: int, mask: NDArray[np.bool_]) -> None:
    """Make `channel` exactly `mask`, in place."""
    bits[channel // 32] &= ~(np.uint32(1) << np.uint32(channel % 32))
    set_channel(bits, channel, mask)
