"""Three planes of a scan with its labels in colour, as radiologists look at them: the patient's right on the left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from imaging.bits import WORD_BITS, Bits
from imaging.volume import Volume

Colour = str | tuple[float, float, float]
WINDOW_HU = (-175, 250)
OPACITY = 0.45
MARKS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""Letters at the left, right, top and bottom edge of each picture; patient's right on the picture's left."""
PLANE_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}


@dataclass(frozen=True, eq=False)
class Plane:
    """One plane as a picture: rows from the top, columns from the left.

    name: axial, coronal or sagittal. index: voxel of the RAS scan it goes through. picture: (rows, columns, 3) float32,
    0 to 1. pixel_mm: of a pixel, downwards and across. outlines: mask (rows, columns) and colour of each class of the
    second labelling.
    """

    name: str
    index: int
    picture: NDArray[np.float32]
    pixel_mm: tuple[float, float]
    outlines: tuple[tuple[NDArray[np.bool_], Colour], ...] = ()


def cut_planes(
    image: Volume,
    bits: Bits,
    classes: Mapping[int, tuple[str, Colour]],
    second_bits: Bits | None = None,
    focus: int | None = None,
) -> list[Plane]:
    """Return an axial, a coronal and a sagittal plane through the middle of the labels, or of the channel `focus`.

    image: HU, any orientation. bits: (W, X, Y, Z) on the same grid. classes: channel -> (title, colour).
    second_bits: a second labelling of the same classes. Where nothing is labelled, the planes go through the middle of
    the scan. Anterior (axial) or superior is on top; window -175..250 HU. ValueError for bits of another shape.
    """
    for given in (bits, second_bits):
        if given is not None and given.shape[1:] != image.shape:
            raise ValueError(f"bits of shape {given.shape} do not fit an image of shape {image.shape}")
    turn = nib.orientations.io_orientation(image.affine)
    scan = nib.orientations.apply_orientation(image.array, turn)
    words = [nib.orientations.apply_orientation(word, turn) for word in bits]
    second = [] if second_bits is None else [nib.orientations.apply_orientation(word, turn) for word in second_bits]
    spacing = np.empty(3)
    spacing[turn[:, 0].astype(int)] = image.spacing_mm
    labellings = [words, second] if second else [words]
    centre = None if focus is None else _centre(labellings, [focus])
    centre = centre or _centre(labellings, list(classes)) or tuple(n // 2 for n in scan.shape)
    planes = []
    for name, axis in PLANE_AXIS.items():
        across, down = (a for a in range(3) if a != axis)
        picture = _grey(_picture(scan, axis, centre[axis]))
        for channel, (_, colour) in classes.items():
            mask = _channel_picture(words, channel, axis, centre[axis])
            picture[mask] = (1 - OPACITY) * picture[mask] + OPACITY * np.array(to_rgb(colour))
        outlines = tuple(
            (_channel_picture(second, channel, axis, centre[axis]), colour)
            for channel, (_, colour) in classes.items()
            if second
        )
        planes.append(Plane(name, int(centre[axis]), picture, (spacing[down], spacing[across]), outlines))
    return planes


def _centre(labellings: list[list[Bits]], channels: list[int]) -> tuple[int, ...] | None:
    """Return the voxel (x, y, z) in the middle of the labels along each axis; None where there is no labelled voxel."""
    labelled = np.zeros(labellings[0][0].shape, dtype=bool)
    for words in labellings:
        for index, word in enumerate(words):
            wanted = sum(1 << (c % WORD_BITS) for c in channels if c // WORD_BITS == index)
            if wanted:
                labelled |= (word & np.uint32(wanted)) != 0
    centre = []
    for axis in range(3):
        counts = labelled.sum(axis=tuple(a for a in range(3) if a != axis)).cumsum()
        if not counts[-1]:
            return None
        centre.append(int(np.searchsorted(counts, counts[-1] / 2)))
    return tuple(centre)


def _grey(hu: NDArray[np.int16]) -> NDArray[np.float32]:
    low, high = WINDOW_HU
    grey = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _picture(array: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return a plane of a RAS array as a picture (rows from the top, columns from the left).

    Both axes are reversed: x, y and z grow to the right, anterior and superior, pictures show those left and on top.
    """
    picture: NDArray[Any] = array.take(index, axis=axis)[::-1, ::-1].T
    return picture


def _channel_picture(words: list[Bits], channel: int, axis: int, index: int) -> NDArray[np.bool_]:
    plane = _picture(words[channel // WORD_BITS], axis, index)
    mask: NDArray[np.bool_] = (plane & (np.uint32(1) << np.uint32(channel % WORD_BITS))) != 0
    return mask
