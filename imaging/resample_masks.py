"""Masks from one grid to another, class by class inside its own box: smooth where the target is finer, else nearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from imaging.bits import Bits, channel_boxes, empty_bits, get_channel
from imaging.components import Box, box_slices, grow
from imaging.interpolate import interpolate_linear, interpolate_nearest
from imaging.resample import Grid, index_map
from imaging.volume import Affine

Form = Literal["linear", "nearest", "probability"]
SLAB_VOXELS = 2**24
"""Voxels of the target worked on at once, as float32: 64 MiB."""
INSIDE = 0.5
TIE = 1e-5
"""Interpolated shares this close to a half are the half: the nearest voxel decides there."""


@dataclass(frozen=True, eq=False)
class BoxedField:
    """A model's probability of one class inside a box of the scan, and 0 elsewhere.

    box: x0, y0, z0, x1, y1, z1, half-open. values: (x, y, z) uint8, 255 for 1, or float.
    """

    box: Box
    values: NDArray[Any]

    def share(self) -> NDArray[np.float32]:
        """Return the probabilities, 0 to 1."""
        scale = 255.0 if self.values.dtype.kind in "iub" else 1.0
        return (self.values / np.float32(scale)).astype(np.float32)


def resample_masks(
    bits: Bits,
    from_affine: Affine,
    grid: Grid,
    *,
    form: Form = "linear",
    probabilities: Mapping[int, BoxedField] | None = None,
) -> Bits:
    """Return class bits (W, X, Y, Z) on `grid`, in the memory order of files (F).

    form: "linear" interpolates each mask as 0 and 1 and takes what is above a half, the nearest voxel deciding where it
    is exactly a half; "nearest" takes the nearest voxel; "probability" interpolates `probabilities` (by channel)
    instead of the mask where there is one, 0 where the mask's neighbourhood of one voxel was cleaned away, and goes on
    as linear. On the grid itself, or one that only permutes and flips its axes, all give the same voxels.
    Beyond the bits this takes memory for one class's box, and `SLAB_VOXELS` of the target at a time.
    Which form is better where: docs/design/0024-exports.md.
    """
    fields = probabilities or {}
    result = empty_bits(grid.shape, bits.shape[0] * 32, order="F")
    for channel, box in channel_boxes(bits).items():
        box = grow(box, (1, 1, 1), _shape(bits))
        inner = get_channel(bits[(slice(None), *box_slices(box))], channel)
        field = _field(inner, box, fields.get(channel)) if form == "probability" else None
        affine = _moved(from_affine, np.array(box[:3]))
        word, value = result[channel // 32], np.uint32(1) << np.uint32(channel % 32)
        for part, mask in _resampled(inner, field, affine, grid, smooth=form != "nearest"):
            word[part] |= mask * value
    return result


def _shape(bits: Bits) -> tuple[int, int, int]:
    return (bits.shape[1], bits.shape[2], bits.shape[3])


def _field(inner: NDArray[np.bool_], box: Box, given: BoxedField | None) -> NDArray[np.float32] | None:
    """Return the probabilities of a mask's box, agreeing with the mask where cleaning changed it; None: not given."""
    if given is None:
        return None
    field = np.zeros(inner.shape, dtype=np.float32)
    low = np.maximum(box[:3], given.box[:3])
    high = np.minimum(box[3:], given.box[3:])
    if (high > low).all():
        here = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, box[:3], strict=True))
        there = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, given.box[:3], strict=True))
        field[here] = given.share()[there]
    # cleaning had the last word: inside it the field is at least a half, outside at most
    np.maximum(field, np.float32(INSIDE), out=field, where=inner)
    np.minimum(field, np.float32(INSIDE) - np.float32(1 / 255), out=field, where=~inner)
    return field


def _resampled(
    inner: NDArray[np.bool_], field: NDArray[np.float32] | None, affine: Affine, grid: Grid, *, smooth: bool
) -> Iterator[tuple[tuple[slice, slice, slice], NDArray[np.bool_]]]:
    """Yield the parts of `grid` that a cropped mask reaches, and the mask there."""
    reach = _reach(inner.shape, affine, grid)
    if reach is None:
        return
    shares = (inner.astype(np.float32) if field is None else field) if smooth else None
    planes = max(1, SLAB_VOXELS // ((reach[3] - reach[0]) * (reach[4] - reach[1])))
    for start in range(reach[2], reach[5], planes):
        part = (reach[0], reach[1], start, reach[3], reach[4], min(start + planes, reach[5]))
        shape = (part[3] - part[0], part[4] - part[1], part[5] - part[2])
        matrix = index_map(affine, _moved(grid.affine, np.array(part[:3])))
        yield box_slices(part), _mask_at(inner, shares, matrix, shape)


def _mask_at(
    inner: NDArray[np.bool_], shares: NDArray[np.float32] | None, matrix: Affine, shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Return the mask on a part of the target; matrix: from its index to that of the cropped mask."""
    if shares is None:
        return interpolate_nearest(inner, matrix, shape)
    values = interpolate_linear(shares, matrix, shape, 0.0)
    mask: NDArray[np.bool_] = values > INSIDE + TIE
    ties = np.abs(values - INSIDE) <= TIE
    if ties.any():
        mask |= ties & interpolate_nearest(inner, matrix, shape)
    return mask


def _reach(shape: tuple[int, ...], affine: Affine, grid: Grid) -> Box | None:
    """Return the box of `grid` whose voxels lie within a voxel of a cropped mask; None where there are none."""
    corners = np.array([[i, j, k] for i in (-1, shape[0]) for j in (-1, shape[1]) for k in (-1, shape[2])])
    matrix = index_map(grid.affine, affine)
    index = corners @ matrix[:3, :3].T + matrix[:3, 3]
    low = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, grid.shape)
    if (high <= low).any():
        return None
    return (int(low[0]), int(low[1]), int(low[2]), int(high[0]), int(high[1]), int(high[2]))


def _moved(affine: Affine, start: NDArray[Any]) -> Affine:
    """Return the affine of a part of a grid that begins at voxel `start`."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ start + affine[:3, 3]
    return moved
