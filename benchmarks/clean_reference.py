"""The rules of cleaning in the usual form: one float volume a class, whole volumes in every step, class after class.

Restated plainly from docs/design/0021-cleaning.md, as the published post-processing is written: parts by cc3d, cavities
and distances by SciPy. One round, right for scans that one round settles. The check of mirrored scans is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets_registry.taxonomy import ClassInfo, all_classes

Masks = NDArray[np.float32]
"""(C, X, Y, Z), 1 inside a class and 0 outside."""


def plain_clean(masks: Masks, spacing_mm: tuple[float, float, float], right: NDArray[np.bool_]) -> Masks:
    """Clean the masks in place and return them; right: (X, Y, Z) or broadcast to it, True on the patient's right."""
    rows = all_classes()
    right = np.broadcast_to(right, masks.shape[1:])
    for row in rows:
        if row.min_ml:
            masks[row.channel] = _large_enough(masks[row.channel] > 0.5, row.min_ml * 1000 / float(np.prod(spacing_mm)))
    for row in rows:
        if row.side == "right":
            other = next(one for one in rows if one.name == row.mirror)
            _sides(masks, row, other, right)
    for row in rows:
        if row.components is not None:
            masks[row.channel] = _largest(masks[row.channel] > 0.5, row.components, _own(masks, row))
    claims, filled = masks.sum(axis=0), {}
    for row in rows:
        cavities = ndimage.binary_fill_holes(masks[row.channel]) & (masks[row.channel] < 0.5)
        family = {row.channel, *_channels(row.parents), *_channels([one.name for one in _children(row)])}
        others = claims - sum(masks[channel] for channel in family)
        filled[row.channel] = np.nonzero(cavities & (others < 0.5))
    for channel, places in filled.items():
        masks[channel][places] = 1
    organs = {row.name: masks[row.channel] > 0.5 for row in rows if _children(row)}
    for row in rows:
        if row.parents:
            _put_inside(masks, row, [organs[name] for name in row.parents], spacing_mm)
    return masks


def _channels(names: Sequence[str]) -> list[int]:
    return [row.channel for row in all_classes() if row.name in names]


def _children(row: ClassInfo) -> list[ClassInfo]:
    return [one for one in all_classes() if row.name in one.parents]


def _own(masks: Masks, row: ClassInfo) -> NDArray[np.bool_]:
    own = masks[row.channel] > 0.5
    for child in _children(row):
        own = own & (masks[child.channel] < 0.5)
    return np.asarray(own)


def _large_enough(mask: NDArray[np.bool_], voxels: float) -> NDArray[np.bool_]:
    parts, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    kept = np.bincount(parts.ravel(), minlength=count + 1) >= voxels * (1 - 1e-9)
    for axis in range(3):
        for end in (0, -1):
            kept[np.unique(np.take(parts, end, axis=axis))] = True
    kept[0] = False
    return np.asarray(kept[parts])


def _largest(mask: NDArray[np.bool_], components: int, own: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    proper = np.bincount(parts[own], minlength=count + 1) > 0
    if proper.any():
        sizes = np.where(proper, sizes, 0)
    sizes[0] = 0
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.argsort(-sizes, kind="stable")[:components]] = True
    kept &= sizes > 0
    return np.asarray(kept[parts])


def _sides(masks: Masks, row: ClassInfo, other: ClassInfo, right: NDArray[np.bool_]) -> None:
    both = (masks[row.channel] > 0.5) & (masks[other.channel] > 0.5)
    owns = [_own(masks, row) & (right | ~both), _own(masks, other) & (~right | ~both)]
    given = [(masks[row.channel] > 0.5) & (right | ~both), (masks[other.channel] > 0.5) & (~right | ~both)]
    masks[row.channel] = masks[other.channel] = 0
    for mask, own, home in zip(given, owns, (row, other), strict=True):
        parts, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
        own_voxels = np.bincount(parts[own], minlength=count + 1)
        own_right = np.bincount(parts[own & right], minlength=count + 1)
        share = np.where(own_voxels > 0, own_right / np.maximum(own_voxels, 1), float(home is row))
        cut = np.minimum(share, 1 - share) >= 0.15
        goes_right = np.where(cut[parts], right, (share >= 0.5)[parts])
        masks[row.channel][mask & goes_right] = 1
        masks[other.channel][mask & ~goes_right] = 1


def _put_inside(
    masks: Masks, row: ClassInfo, organs: Sequence[NDArray[np.bool_]], spacing_mm: tuple[float, float, float]
) -> None:
    mask = masks[row.channel] > 0.5
    distances = [
        ndimage.distance_transform_edt(~organ, sampling=spacing_mm) if organ.any() else np.full(mask.shape, np.inf)
        for organ in organs
    ]
    reach = max(row.margin_mm, float(np.linalg.norm(spacing_mm))) * (1 + 1e-6)
    near = mask & (np.min(distances, axis=0) <= reach)
    masks[row.channel] = near
    outside = near & ~np.any(organs, axis=0)
    nearest = np.argmin(distances, axis=0)
    for index, name in enumerate(row.parents):
        masks[_channels([name])[0]][outside & (nearest == index)] = 1
