"""Checks that a volume is what it claims to be: HU that are HU, a label on its image's grid, declared values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import fastremap
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from imaging.components import bounding_box, box_slices
from imaging.errors import BadInput
from imaging.resample import AIR_HU
from imaging.volume import Affine, Volume

GRID_ROUNDING_MM = 0.01
LABEL_ROUNDING = 1e-3
SHIFTED_TISSUE = (824, 1324)
"""Where soft tissue (-200..300 HU) lies when 1024 was never subtracted; in true HU only dense bone and metal do."""
SHIFTED_SHARE = 0.10
SHARE_SLICES = 64
NARROWEST_HU = 100.0
HIGHEST_HU = 32767
EXPECTED_HU = "HU: air -1000, water 0, bone to about 2000, range about -1024..3071"


def check_hu(image: Volume, where: str) -> None:
    """Raise BadInput when the values (X, Y, Z) cannot be HU: constant, normalised, wrapped or shifted by 1024."""
    low, high = float(image.array.min()), float(image.array.max())
    values = f"values {low:g} to {high:g}"
    if low == high:
        raise BadInput("hu_constant", where, f"the constant {low:g}", EXPECTED_HU, "export the scan again")
    if high > HIGHEST_HU:
        share = float(np.count_nonzero(image.array > HIGHEST_HU) / image.array.size)
        raise BadInput(
            "hu_wrapped",
            where,
            f"{values}, {share:.1%} of the voxels above {HIGHEST_HU}",
            EXPECTED_HU,
            "negative HU were stored as unsigned 16 bit: convert them back (subtract 65536) or export again",
        )
    if high - low < NARROWEST_HU:
        raise BadInput(
            "hu_normalised",
            where,
            f"{values}, a span of {high - low:g}",
            EXPECTED_HU,
            "the scan was normalised (to [0, 1], to unit variance or to a narrow window): use the original",
        )
    if low >= 0 and high <= 255:
        raise BadInput("hu_normalised", where, values, EXPECTED_HU, "the scan was windowed to 8 bits: use the original")
    # a share is known well enough from some slices; an offset shifts all of them
    sampled = range(0, image.shape[2], max(1, image.shape[2] // SHARE_SLICES))
    slices = (image.array[:, :, k] for k in sampled)
    inside = sum(int(np.count_nonzero((one >= SHIFTED_TISSUE[0]) & (one <= SHIFTED_TISSUE[1]))) for one in slices)
    share = inside / (len(sampled) * image.shape[0] * image.shape[1])
    if share >= SHIFTED_SHARE:
        raise BadInput(
            "hu_shifted",
            where,
            f"{values}, {share:.1%} of the voxels in {SHIFTED_TISSUE[0]}..{SHIFTED_TISSUE[1]}",
            EXPECTED_HU,
            "the rescale intercept was not applied: subtract 1024 or export again",
        )


def clear_padding(image: Volume) -> Volume:
    """Return the image with everything below -1024 (padding outside the field of view) set to -1024, as a step."""
    lowest = float(image.array.min())
    if lowest >= AIR_HU:
        return image
    below = image.array < AIR_HU
    count = int(np.count_nonzero(below))
    array = np.where(below, np.array(AIR_HU, dtype=image.array.dtype), image.array)
    return image.with_array(array).with_step("clear_padding", voxels=count, lowest=lowest)


def match_grid(image: Volume, label: Volume, where: str) -> Volume:
    """Return the label on the image's grid; raise BadInput when it lies elsewhere.

    Other axis order or direction is undone by the affines (a step); a rest below 0.01 mm is rounding and takes the
    image's affine (a step); another shape, spacing or place is refused with both values and the shift in mm.
    """
    label = _reorient_like(image, label)
    if label.shape != image.shape:
        raise BadInput(
            "label_shape",
            where,
            f"a label of shape {label.shape}, spacing {_mm(label.spacing_mm)} (axes as the image)",
            f"the image's shape {image.shape}, spacing {_mm(image.spacing_mm)}",
            "use the label drawn on this image",
        )
    apart = _corner_shifts(label.affine, image.affine, image.shape)
    worst = float(np.linalg.norm(apart, axis=1).max())
    if worst >= GRID_ROUNDING_MM:
        raise BadInput(
            "label_shift",
            where,
            f"a label with first voxel at {_mm(label.affine[:3, 3])}, spacing {_mm(label.spacing_mm)}: shifted by "
            f"{_mm(apart[0])} mm at the first voxel, {worst:.3f} mm at the farthest",
            f"the image's first voxel at {_mm(image.affine[:3, 3])}, spacing {_mm(image.spacing_mm)}, within "
            f"{GRID_ROUNDING_MM} mm",
            "use the label drawn on this image, or repair its header",
        )
    if worst > 0:
        label = Volume(label.array, image.affine, label.steps).with_step("round_grid", farthest_mm=round(worst, 6))
    return label


def check_label_values(label: Volume, allowed: Collection[int] | Mapping[int, str], where: str) -> Volume:
    """Return the label with integer values, all of them declared; raise BadInput otherwise.

    allowed: the declared values (a mapping also gives their names to the message); 0 is always background.
    Floats within 0.001 of an integer are rounded (a step); the result has the smallest unsigned type that fits,
    or int32 with negative values.
    """
    label = _to_integers(label, where)
    box = bounding_box(label.array) or (0, 0, 0, 1, 1, 1)  # background needs no count
    inner = label.array[box_slices(box)]
    values, voxels = fastremap.unique(np.ascontiguousarray(inner.T), return_counts=True)
    for value, count in zip(values.tolist(), voxels.tolist(), strict=True):
        if value != 0 and value not in allowed:
            raise BadInput(
                "label_value",
                where,
                f"label value {value} in {count} voxels",
                f"0 or one of {_declared(allowed)}",
                "check the download, or declare the value in the data set's card",
            )
    low, high = int(values.min()), int(values.max())
    smallest = np.int32 if low < 0 else np.min_scalar_type(high)
    return label.with_array(label.array.astype(smallest, copy=False))


def _reorient_like(image: Volume, label: Volume) -> Volume:
    here = nib.orientations.io_orientation(label.affine)
    wanted = nib.orientations.io_orientation(image.affine)
    if np.array_equal(here, wanted):
        return label
    turn = nib.orientations.ornt_transform(here, wanted)
    array = nib.orientations.apply_orientation(label.array, turn)
    affine = label.affine @ nib.orientations.inv_ornt_aff(turn, label.shape)
    codes = nib.orientations.ornt2axcodes
    return Volume(array, affine, label.steps).with_step(
        "reorient_to_image", orientation_before="".join(codes(here)), orientation="".join(codes(wanted))
    )


def _corner_shifts(affine: Affine, reference: Affine, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """World shift in mm of the eight corner voxels (8, 3), the first voxel first."""
    ends = [(0, n - 1) for n in shape]
    corners = np.array([[i, j, k, 1] for i in ends[0] for j in ends[1] for k in ends[2]], dtype=np.float64)
    shifts: NDArray[np.float64] = (corners @ (affine - reference).T)[:, :3]
    return shifts


def _to_integers(label: Volume, where: str) -> Volume:
    if label.array.dtype.kind in "iub":
        return label if label.array.dtype != bool else label.with_array(label.array.astype(np.uint8))
    rounded = np.rint(label.array)
    off = np.abs(label.array - rounded)
    worst = float(off.max())
    # written so that NaN is refused too
    if not worst <= LABEL_ROUNDING:
        away = off > LABEL_ROUNDING
        first = tuple(int(axis[0]) for axis in np.nonzero(~(off <= LABEL_ROUNDING)))
        raise BadInput(
            "label_not_integer",
            where,
            f"{int(away.sum())} voxels ({float(away.mean()):.1%}) without an integer value, such as "
            f"{float(label.array[first]):g} at index {first}",
            f"whole numbers within {LABEL_ROUNDING}",
            "the label was interpolated: use the original, resampled by nearest neighbour",
        )
    whole = label.with_array(rounded.astype(np.int32))
    return whole.with_step("round_label", largest_rounding=worst) if worst > 0 else whole


def _declared(allowed: Collection[int] | Mapping[int, str]) -> str:
    names: Mapping[int, str] = allowed if isinstance(allowed, Mapping) else {}
    listed = [f"{value} ({names[value]})" if value in names else str(value) for value in sorted(allowed)]
    return ", ".join(listed[:40]) + (f" and {len(listed) - 40} more" if len(listed) > 40 else "")


def _mm(values: Any) -> str:
    return "(" + ", ".join(f"{float(v):.4g}" if abs(float(v)) < 1000 else f"{float(v):.2f}" for v in values) + ")"
