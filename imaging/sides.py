"""Left and right: where the middle of the body runs, and which side each part of a mask belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imaging.components import Box, bounding_box, box_slices, label_parts
from imaging.resample import orientation
from imaging.volume import Affine, Volume

BODY_HU = -300
COARSE_MM = 4.0
SMOOTH_MM = 30.0
CUT_SHARE = 0.15
"""A part with at least this share of its voxels on each side of the middle is cut there."""

SideStatus = Literal["two", "right_only", "left_only", "cut", "empty"]


@dataclass(frozen=True, eq=False)
class SideSplit:
    """The patient's right and left share of a mask, each (X, Y, Z) bool; together they are the mask, without overlap.

    status: "two" parts on both sides, "right_only", "left_only", "cut" where a part crossing the middle had to be
    divided there, "empty".
    """

    right: NDArray[np.bool_]
    left: NDArray[np.bool_]
    status: SideStatus


def body_midline_x(image_hu: Volume) -> NDArray[np.float64]:
    """Return the world x (mm) of the body's middle for every axial slice, (Z,).

    image_hu: RAS-oriented HU. The body is the largest part above -300 HU with its holes filled, in each slice the
    largest region (which leaves arms and table out); its middle is the median x of that region, smoothed along z.
    Slices without body take the nearest slice's value; without any body it is the middle of the volume.
    """
    if orientation(image_hu.affine) != "RAS":
        raise ValueError(f"orientation {orientation(image_hu.affine)}: RAS is needed, call orient_ras first")
    affine, spacing = image_hu.affine, image_hu.spacing_mm
    stride = [max(1, int(COARSE_MM / s)) for s in spacing]
    coarse = image_hu.array[:: stride[0], :: stride[1], :: stride[2]]
    body = cc3d.largest_k(np.ascontiguousarray(coarse > BODY_HU), k=1, connectivity=6).astype(bool)
    middle = np.full(body.shape[2], np.nan)
    for k in range(body.shape[2]):
        trunk = _trunk(body[:, :, k])
        if trunk is not None:
            middle[k] = _median_index(trunk.sum(axis=1)) * stride[0]
    known = np.flatnonzero(np.isfinite(middle))
    slices = np.arange(image_hu.shape[2])
    # world x at the volume's centre row: for oblique scans x also changes with y
    offset = affine[0, 1] * (image_hu.shape[1] - 1) / 2 + affine[0, 2] * slices + affine[0, 3]
    if not len(known):
        return np.asarray(affine[0, 0] * (image_hu.shape[0] - 1) / 2 + offset, dtype=np.float64)
    middle = np.interp(np.arange(len(middle)), known, middle[known])
    window = max(1, round(SMOOTH_MM / (spacing[2] * stride[2])))
    middle = ndimage.uniform_filter1d(
        ndimage.median_filter(middle, size=window, mode="nearest"), window, mode="nearest"
    )
    return np.asarray(affine[0, 0] * np.interp(slices / stride[2], np.arange(len(middle)), middle) + offset)


def split_sides(mask: NDArray[np.bool_], affine: Affine, midline: NDArray[np.float64]) -> SideSplit:
    """Divide a mask (X, Y, Z) on a RAS grid into the patient's right and left; every voxel ends up on one side.

    affine: 4 x 4, voxel index to RAS mm. midline: (Z,) world x in mm, of `body_midline_x`.
    Each 26-connected part goes whole to the side where most of it lies, unless at least 15 % of its voxels lie on each
    side: then it is cut at the middle (horseshoe kidney, touching lungs). Right is the larger x, the line included.
    """
    if midline.shape != (mask.shape[2],):
        raise ValueError(f"midline of shape {midline.shape} for a mask of shape {mask.shape}: one x per axial slice")
    right = np.zeros_like(mask)  # in the mask's memory order, or each step below takes ten times as long
    box = bounding_box(mask)
    if box is None:
        return SideSplit(right, right.copy(), "empty")
    window = box_slices(box)
    parts, count = label_parts(mask[window])
    beyond = right_of(midline, affine, box)
    voxels = np.bincount(parts.ravel(order="K"), minlength=count + 1)
    voxels_right = np.bincount(np.where(beyond, parts, 0).ravel(order="K"), minlength=count + 1)
    whole, cut = side_of_parts(voxels, voxels_right)
    cut[0] = whole[0] = False  # part 0 is what lies outside the mask
    right[window] = _look_up(whole, parts)
    if cut.any():
        np.copyto(right[window], beyond, where=_look_up(cut, parts))
    left = mask & ~right
    if cut.any():
        return SideSplit(right, left, "cut")
    if right.any() and left.any():
        return SideSplit(right, left, "two")
    return SideSplit(right, left, "right_only" if right.any() else "left_only")


def side_of_parts(
    voxels: NDArray[np.int64], voxels_right: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which parts belong to the right as a whole, and which are cut at the middle.

    voxels, voxels_right: of each part, all of them and those right of the middle. A part is cut where at least 15 % lie
    on either side; of the others those are right that lie there by half or more.
    """
    share = voxels_right / np.maximum(voxels, 1)
    cut = np.minimum(share, 1 - share) >= CUT_SHARE
    return (share >= 0.5) & ~cut, cut


def right_of(midline: NDArray[np.float64], affine: Affine, box: Box) -> NDArray[np.bool_]:
    """Tell which voxels of a box lie right of the middle; (X, 1, Z) unless x changes along the second axis too.

    midline: (Z,) world x in mm of the whole volume, of `body_midline_x`. affine: RAS, of the whole volume.
    """
    i, j, k = np.ogrid[box[0] : box[3], box[1] : box[4], box[2] : box[5]]
    x = affine[0, 0] * i + affine[0, 2] * k + affine[0, 3]
    if affine[0, 1]:
        x = x + affine[0, 1] * j
    return np.asarray(x >= midline[box[2] : box[5]])


def _look_up(table: NDArray[np.bool_], parts: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return table[parts] in the memory order of `parts`."""
    return table[parts.T].T if parts.flags.f_contiguous else table[parts]


def _trunk(body: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return the largest region of one slice (X, Y) with its holes filled, or None when there is no body."""
    regions, count = ndimage.label(body)
    if not count:
        return None
    sizes = np.bincount(regions.ravel())[1:]
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(regions == int(sizes.argmax()) + 1)
    return filled


def _median_index(counts: NDArray[np.int64]) -> float:
    """Return the position that halves the voxels counted along an axis; index i covers i - 0.5 to i + 0.5."""
    total = np.concatenate([[0], np.cumsum(counts)])
    return float(np.interp(total[-1] / 2, total, np.arange(len(total)))) - 0.5
