"""Pictures of labels on a scan: a large one with title and legend, and a small strip for pages with many."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image, ImageDraw, ImageFont

from imaging.bits import Bits
from imaging.planes import MARKS, Colour, Plane, cut_planes
from imaging.volume import Volume

PLACES = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.97), (0.5, 0.03))
"""Of the four letters in each picture, from its lower left."""

GAP_PIXELS = 4


def overlay_png(
    image: Volume,
    bits: Bits,
    classes: Mapping[int, tuple[str, Colour]],
    path: Path,
    title: str = "",
    second_bits: Bits | None = None,
    focus: int | None = None,
) -> Path:
    """Write a PNG of an axial, a coronal and a sagittal plane through the middle of the labels, and return its path.

    image: HU, any orientation. bits: (W, X, Y, Z) on the same grid; shown filled. second_bits: a second labelling of
    the same classes (a reference beside a prediction), shown as outlines. classes: channel -> (title, colour). focus:
    channel that the planes go through. See `planes.cut_planes`: pictures are right side up, the patient's right on the
    left, and say so.
    """
    figure = Figure(figsize=(13.5, 5.2), dpi=100, layout="constrained", facecolor="black")
    FigureCanvasAgg(figure)
    planes = cut_planes(image, bits, classes, second_bits, focus)
    for axes, plane in zip(figure.subplots(1, 3), planes, strict=True):
        _draw_plane(axes, plane)
    handles = [Patch(color=to_rgb(colour), label=name) for name, colour in classes.values()]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=8, frameon=False,
            labelcolor="white",
        )  # fmt: skip
    outline = "" if second_bits is None else "   (filled: labels, lines: reference)"
    figure.suptitle(f"{title}{outline}", color="white", fontsize=11)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    # no software name and version in the file: the same picture gives the same bytes
    figure.savefig(aside, format="png", facecolor="black", metadata={"Software": None})
    aside.replace(path)
    return path


def overlay_strip(
    image: Volume,
    bits: Bits,
    classes: Mapping[int, tuple[str, Colour]],
    *,
    focus: int | None = None,
    height: int = 220,
    quality: int = 82,
) -> bytes:
    """Return a JPEG of the same three planes side by side, without title and legend; see `overlay_png`.

    height: pixels. A pixel is as large in mm everywhere in one plane.
    """
    pictures = [_scaled(plane, height) for plane in cut_planes(image, bits, classes, focus=focus)]
    width = sum(one.width for one in pictures) + GAP_PIXELS * (len(pictures) - 1)
    strip = Image.new("RGB", (width, height))
    left = 0
    for one in pictures:
        strip.paste(one, (left, 0))
        left += one.width + GAP_PIXELS
    stream = io.BytesIO()
    strip.save(stream, format="JPEG", quality=quality)
    return stream.getvalue()


def _scaled(plane: Plane, height: int) -> Image.Image:
    rows, columns = plane.picture.shape[:2]
    down, across = plane.pixel_mm
    width = max(1, round(height * columns * across / (rows * down)))
    pixels = Image.fromarray((plane.picture * 255).round().astype(np.uint8))
    # enlarged pixels keep their edges, as the voxels they are; a reduced picture is averaged
    how = Image.Resampling.NEAREST if height >= rows and width >= columns else Image.Resampling.BOX
    picture = pixels.resize((width, height), how)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for letter, (x, y) in zip(MARKS[plane.name], PLACES, strict=True):
        place = (min(max(x * width, 8), width - 8), min(max((1 - y) * height, 10), height - 10))
        draw.text(place, letter, fill="yellow", font=font, anchor="mm", stroke_width=2, stroke_fill="black")
    return picture


def _draw_plane(axes: Any, plane: Plane) -> None:
    down, across = plane.pixel_mm
    axes.imshow(plane.picture, aspect=down / across, interpolation="nearest")
    for mask, colour in plane.outlines:
        if mask.any():
            axes.contour(mask, levels=[0.5], colors=[to_rgb(colour)], linewidths=1.2)
    for letter, (x, y) in zip(MARKS[plane.name], PLACES, strict=True):
        mark = axes.text(x, y, letter, transform=axes.transAxes, color="yellow", ha="center", va="center", fontsize=11)
        mark.set_path_effects([withStroke(linewidth=2, foreground="black")])
    axes.set_title(f"{plane.name}, voxel {plane.index}", color="white", fontsize=9)
    axes.set_axis_off()
