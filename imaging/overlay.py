"""A picture of labels on a scan: three planes, the way radiologists look at them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from imaging.bits import WORD_BITS, Bits
from imaging.volume import Volume

Colour = str | tuple[float, float, float]
WINDOW_HU = (-175, 250)
OPACITY = 0.45
MARKS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""Letters at the left, right, top and bottom edge of each picture; patient's right on the picture's left."""
PLANE_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}


def overlay_png(
    image: Volume,
    bits: Bits,
    classes: Mapping[int, tuple[str, Colour]],
    path: Path,
    title: str = "",
    second_bits: Bits | None = None,
) -> Path:
    """Write a PNG of an axial, a coronal and a sagittal plane through the middle of the labels, and return its path.

    image: HU, any orientation. bits: (W, X, Y, Z) on the same grid; shown filled. second_bits: a second labelling of
    the same classes (a reference beside a prediction), shown as outlines. classes: channel -> (title, colour).
    With no labelled voxel the planes go through the middle of the scan. Pictures are right side up: the patient's
    right on the left, anterior (axial) or superior on top; window -175..250 HU.
    """
    for given in (bits, second_bits):
        if given is not None and given.shape[1:] != image.shape:
            raise ValueError(f"bits of shape {given.shape} do not fit an image of shape {image.shape}")
    turn = nib.orientations.io_orientation(image.affine)
    scan = nib.orientations.apply_orientation(image.array, turn)
    words = _oriented_words(bits, turn)
    second = None if second_bits is None else _oriented_words(second_bits, turn)
    spacing = np.empty(3)
    spacing[turn[:, 0].astype(int)] = image.spacing_mm
    centre = _centre([words] if second is None else [words, second], classes)
    figure = Figure(figsize=(13.5, 5.2), dpi=100, layout="constrained", facecolor="black")
    FigureCanvasAgg(figure)
    for axes, plane in zip(figure.subplots(1, 3), PLANE_AXIS, strict=True):
        _draw_plane(axes, plane, scan, words, second, classes, spacing, centre)
    handles = [Patch(color=to_rgb(colour), label=name) for name, colour in classes.values()]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=8, frameon=False,
            labelcolor="white",
        )  # fmt: skip
    outline = "" if second is None else "   (filled: labels, lines: reference)"
    figure.suptitle(f"{title}{outline}", color="white", fontsize=11)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    # no software name and version in the file: the same picture gives the same bytes
    figure.savefig(aside, format="png", facecolor="black", metadata={"Software": None})
    aside.replace(path)
    return path


def _oriented_words(bits: Bits, turn: NDArray[Any]) -> list[Bits]:
    return [nib.orientations.apply_orientation(word, turn) for word in bits]


def _centre(labellings: list[list[Bits]], classes: Mapping[int, tuple[str, Colour]]) -> tuple[int, int, int]:
    """Return the voxel (x, y, z) through which the planes go: along each axis the labels' middle voxel."""
    shape = labellings[0][0].shape
    labelled = np.zeros(shape, dtype=bool)
    for words in labellings:
        for index, word in enumerate(words):
            wanted = [1 << (c % WORD_BITS) for c in classes if c // WORD_BITS == index]
            labelled |= (word & np.uint32(sum(wanted))) != 0
    centre = []
    for axis in range(3):
        counts = labelled.sum(axis=tuple(a for a in range(3) if a != axis)).cumsum()
        centre.append(int(np.searchsorted(counts, counts[-1] / 2)) if counts[-1] else shape[axis] // 2)
    return (centre[0], centre[1], centre[2])


def _draw_plane(
    axes: Any,
    plane: str,
    scan: NDArray[Any],
    words: list[Bits],
    second: list[Bits] | None,
    classes: Mapping[int, tuple[str, Colour]],
    spacing: NDArray[np.float64],
    centre: tuple[int, int, int],
) -> None:
    axis = PLANE_AXIS[plane]
    across, up = (a for a in range(3) if a != axis)
    low, high = WINDOW_HU
    grey = np.clip((_picture(scan, axis, centre[axis]).astype(np.float32) - low) / (high - low), 0, 1)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    for channel, (_, colour) in classes.items():
        mask = _channel_picture(words, channel, axis, centre[axis])
        picture[mask] = (1 - OPACITY) * picture[mask] + OPACITY * np.array(to_rgb(colour))
    axes.imshow(picture, aspect=spacing[up] / spacing[across], interpolation="nearest")
    if second is not None:
        for channel, (_, colour) in classes.items():
            mask = _channel_picture(second, channel, axis, centre[axis])
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=[to_rgb(colour)], linewidths=1.2)
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.97), (0.5, 0.03))
    for letter, (x, y) in zip(MARKS[plane], places, strict=True):
        mark = axes.text(x, y, letter, transform=axes.transAxes, color="yellow", ha="center", va="center", fontsize=11)
        mark.set_path_effects([withStroke(linewidth=2, foreground="black")])
    axes.set_title(f"{plane}, voxel {centre[axis]}", color="white", fontsize=9)
    axes.set_axis_off()


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
