"""What happens to a scan after it was made: lost spacing, padding, and how the copies of other data sets differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np

from datasets_registry.miniatures.phantom import Anatomy
from imaging.bits import Bits
from imaging.volume import Affine, Volume

DEEP_PADDING_HU = -3024
"""What some scanners write outside the round field of view."""
WINDOW_HU = (-1000, 400)
"""Soft-tissue window of a copy that was clipped: metal, bone and air lose their values."""
COPY_AXES = {"RAS": "LPS", "LAS": "PLS", "LPS": "RAS"}
"""Axis order of the re-oriented copy, by the axis order of the scan; any other becomes RAS."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan with its full truth.

    image: int16 HU with the affine that the file will show. bits: (W, X, Y, Z) on the same grid. anatomy: the patient.
    true_affine: voxel index to the mm in which the patient was drawn; differs from the image's where spacing was lost.
    """

    image: Volume
    bits: Bits
    anatomy: Anatomy
    true_affine: Affine


def lost_spacing(scan: Scan) -> Scan:
    """Return the scan with an identity affine, 1 mm voxels that are none (LiTS 28-47); its axes must be RAS."""
    if nib.orientations.aff2axcodes(scan.image.affine) != ("R", "A", "S"):
        raise ValueError("an identity affine says that the axes are RAS; give the style of this case the axes RAS")
    return replace(scan, image=Volume(scan.image.array, np.eye(4)))


def deep_padding(scan: Scan) -> Scan:
    """Return the scan with -3024 HU in the corners around the inscribed ellipse of every axial plane."""
    array = scan.image.array.copy()
    up = _axis_along(scan.image.affine, 2)
    one, other = (axis for axis in range(3) if axis != up)
    lines = [np.linspace(-1, 1, length) for length in array.shape]
    outside = _along(lines[one], one) ** 2 + _along(lines[other], other) ** 2 > 1
    array[np.broadcast_to(outside, array.shape)] = DEEP_PADDING_HU
    return replace(scan, image=scan.image.with_array(array))


def void_corner(scan: Scan) -> Scan:
    """Return the scan with one corner empty, as a rotation leaves it; the truth there stays."""
    array = scan.image.array.copy()
    first, second = (np.linspace(0, 1, array.shape[axis]) for axis in (0, 1))
    array[(first[:, None] + second[None, :]) > 1.35] = -1024
    return replace(scan, image=scan.image.with_array(array))


def true_spacing(scan: Scan) -> Scan:
    """Return the scan with the affine it was made with."""
    return replace(scan, image=Volume(scan.image.array, scan.true_affine))


def identical(scan: Scan) -> Scan:
    """Return the scan itself."""
    return scan


def reoriented(scan: Scan) -> Scan:
    """Return the same voxels in the same places, stored in another axis order."""
    codes = "".join(nib.orientations.aff2axcodes(scan.image.affine))
    here = nib.orientations.io_orientation(scan.image.affine)
    wanted = nib.orientations.axcodes2ornt(COPY_AXES.get(codes, "RAS"))
    turn = nib.orientations.ornt_transform(here, wanted)
    back = nib.orientations.inv_ornt_aff(turn, scan.image.shape)
    words = [nib.orientations.apply_orientation(word, turn) for word in scan.bits]
    return replace(
        scan,
        image=Volume(nib.orientations.apply_orientation(scan.image.array, turn), scan.image.affine @ back),
        bits=np.stack(words),
        true_affine=scan.true_affine @ back,
    )


def cropped(scan: Scan) -> Scan:
    """Return the scan without its lowest sixth and its topmost slice; every voxel left keeps its place."""
    up = _axis_along(scan.image.affine, 2)
    length = scan.image.shape[up]
    first, last = length // 6, length - 1
    if scan.image.affine[2, up] < 0:
        first, last = length - last, length - first
    window = tuple(slice(first, last) if axis == up else slice(None) for axis in range(3))
    shift = np.eye(4)
    shift[up, 3] = first
    image = Volume(np.ascontiguousarray(scan.image.array[window]), scan.image.affine @ shift)
    bits = np.ascontiguousarray(scan.bits[(slice(None), *window)])
    return replace(scan, image=image, bits=bits, true_affine=scan.true_affine @ shift)


def windowed(scan: Scan) -> Scan:
    """Return the scan with its HU clipped to `WINDOW_HU`."""
    return replace(scan, image=scan.image.with_array(np.clip(scan.image.array, *WINDOW_HU).astype(np.int16)))


AFTER: dict[str, Callable[[Scan], Scan]] = {
    "lost_spacing": lost_spacing,
    "deep_padding": deep_padding,
    "void_corner": void_corner,
}
TWIN_CHANGES: dict[str, Callable[[Scan], Scan]] = {
    "identical": identical,
    "reoriented": reoriented,
    "cropped": cropped,
    "windowed": windowed,
    "cropped, true spacing, reoriented": lambda scan: reoriented(cropped(true_spacing(scan))),
}


def _axis_along(affine: Affine, world: int) -> int:
    return int(np.abs(affine[world, :3]).argmax())


def _along(
    line: np.ndarray[tuple[int], np.dtype[np.float64]], axis: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return line.reshape([-1 if other == axis else 1 for other in range(3)])
