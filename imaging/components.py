"""Connected parts of a mask (26 neighbours) and the figures the catalog keeps about a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from imaging.volume import Affine, Volume

Box = tuple[int, int, int, int, int, int]
"""x0, y0, z0, x1, y1, z1 in voxels, half-open."""

CONNECTIVITY = 26
SMALL = 64**3
"""Voxels of an array up to which its parts are looked for with a margin around it."""


@dataclass(frozen=True, eq=False)
class MaskStatistics:
    """Figures of one mask. For an empty mask bbox and centroid_mm are None and the numbers are 0.

    voxels: count. ml: volume. bbox: x0, y0, z0, x1, y1, z1, half-open. centroid_mm: RAS mm.
    components: 26-connected parts. touches_border: a voxel lies on a face of the array.
    sampled_voxels: (n, 3) int32, distinct voxel indices X Y Z inside the mask, n <= the sample asked for.
    hu_mean: mean HU under the mask, None where no image was given.
    """

    voxels: int
    ml: float
    bbox: Box | None
    centroid_mm: tuple[float, float, float] | None
    components: int
    touches_border: bool
    sampled_voxels: NDArray[np.int32]
    hu_mean: float | None = None


NO_VOXELS = MaskStatistics(0, 0.0, None, None, 0, False, np.zeros((0, 3), dtype=np.int32))
"""Figures of an empty mask."""


def bounding_box(mask: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Box | None:
    """Return the half-open box x0, y0, z0, x1, y1, z1 around the voxels of (X, Y, Z) other than 0; None without any."""
    # reduce over the axis of the largest stride first: it reads memory in order and leaves a small plane
    slow = int(np.argmax(np.abs(mask.strides)))
    plane = np.bitwise_or.reduce(mask, axis=slow) != 0
    if not plane.any():
        return None
    fast = [axis for axis in range(3) if axis != slow]
    low, high = [0, 0, 0], list(mask.shape)
    for position, axis in enumerate(fast):
        hits = np.flatnonzero(np.any(plane, axis=1 - position))
        low[axis], high[axis] = int(hits[0]), int(hits[-1]) + 1
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    hits = np.flatnonzero(np.bitwise_or.reduce(mask[window], axis=tuple(fast)))
    low[slow], high[slow] = int(hits[0]), int(hits[-1]) + 1
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def box_slices(box: Box) -> tuple[slice, slice, slice]:
    """Return the three slices that cut a half-open box out of an (X, Y, Z) array."""
    return slice(box[0], box[3]), slice(box[1], box[4]), slice(box[2], box[5])


def crop(volume: Volume, box: Box) -> Volume:
    """Return the part of a volume inside a half-open box, every voxel where it was; the array is a view."""
    affine = volume.affine.copy()
    affine[:3, 3] = volume.world_mm(np.array([box[:3]]))[0]
    return Volume(volume.array[box_slices(box)], affine, volume.steps)


def grow(box: Box, voxels: tuple[int, int, int], shape: tuple[int, int, int]) -> Box:
    """Return the box with `voxels` (X, Y, Z) more on every side, as far as an array of `shape` reaches."""
    low = [max(0, box[axis] - voxels[axis]) for axis in range(3)]
    high = [min(shape[axis], box[axis + 3] + voxels[axis]) for axis in range(3)]
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def count_components(mask: NDArray[np.bool_]) -> int:
    """Return the number of 26-connected parts of a mask (X, Y, Z); 0 when it is empty."""
    box = bounding_box(mask)
    return 0 if box is None else label_parts(mask[box_slices(box)])[1]


def largest_components(mask: NDArray[np.bool_], keep: int) -> NDArray[np.bool_]:
    """Return the mask of its `keep` largest 26-connected parts; ties go to the part found first, empty stays empty."""
    if keep < 1:
        raise ValueError(f"keep {keep} components: at least 1 is needed")
    result = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is None:
        return result
    labels, count = label_parts(mask[box_slices(box)])
    sizes = np.bincount(labels.ravel(order="K"), minlength=count + 1)[1:]
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.argsort(-sizes, kind="stable")[:keep] + 1] = True
    result[box_slices(box)] = kept[labels]
    return result


def mask_statistics(mask: NDArray[np.bool_], affine: Affine, sample: int, seed: int) -> MaskStatistics:
    """Return size, place and parts of a mask (X, Y, Z), with at most `sample` voxels drawn without replacement.

    affine: 4 x 4, voxel index to RAS mm. The same mask, sample and seed give the same voxels.
    """
    box = bounding_box(mask)
    return NO_VOXELS if box is None else crop_statistics(mask[box_slices(box)], box, mask.shape, affine, sample, seed)


def crop_statistics(
    inner: NDArray[np.bool_],
    box: Box,
    shape: tuple[int, ...],
    affine: Affine,
    sample: int,
    seed: int,
    image: NDArray[Any] | None = None,
) -> MaskStatistics:
    """Return the figures of `mask_statistics` for a mask of which only its tight `box` is given; `shape` is the whole.

    Indices and mm are those of the whole array, as are affine and image (X, Y, Z) HU.
    """
    inside = np.argwhere(inner).astype(np.int32) + np.array(box[:3], dtype=np.int32)
    mean = inside.mean(axis=0, dtype=np.float64)
    centroid = affine[:3, :3] @ mean + affine[:3, 3]
    chosen = np.random.default_rng(seed).permutation(len(inside))[: max(sample, 0)]
    touches = any(box[axis] == 0 or box[axis + 3] == shape[axis] for axis in range(3))
    return MaskStatistics(
        voxels=len(inside),
        ml=len(inside) * abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0,
        bbox=box,
        centroid_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
        components=label_parts(inner)[1],
        touches_border=touches,
        sampled_voxels=inside[np.sort(chosen)],
        hu_mean=None if image is None else float(image[box_slices(box)][inner].mean(dtype=np.float64)),
    )


def label_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint32], int]:
    """Return the number of the 26-connected part of each voxel, 0 outside the mask, and the count of parts."""
    if mask.size > SMALL:
        labels, count = cc3d.connected_components(mask, connectivity=CONNECTIVITY, return_N=True)
        return labels, int(count)
    # cc3d 4.1 reserves labels for an eighth of the voxels: too few where a small array holds single voxels
    labels, count = cc3d.connected_components(np.pad(mask, 1), connectivity=CONNECTIVITY, return_N=True)
    return labels[1:-1, 1:-1, 1:-1], int(count)
