"""A label drawn as one 8-bit grey PNG a slice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from imaging.errors import BadInput


def read_png_stack(files: Sequence[Path]) -> NDArray[np.uint8]:
    """Return the grey values of PNG slices, (rows, columns, n) uint8, in the order of `files`.

    Row 0 is the top of each picture and column 0 its left, as stored; `stack.transpose(1, 0, 2)` is (X, Y, Z) of a
    volume whose x runs along the columns. Values are kept as they are: 0..255, nothing is scaled.
    Raises BadInput for an unreadable file, a palette, colour or 16-bit picture, or slices of unlike size.
    """
    if not files:
        raise ValueError("a PNG stack of no files: list the slices in their order along the patient")
    slices = [_read_png(path) for path in files]
    first = slices[0].shape
    for path, one in zip(files, slices, strict=True):
        if one.shape != first:
            raise BadInput(
                "png_size",
                path.name,
                f"{one.shape[0]} rows x {one.shape[1]} columns",
                f"{first[0]} x {first[1]} as in the first slice",
                "keep slices of one series in one folder",
            )
    return np.stack(slices, axis=-1)


def write_png(array: NDArray[np.uint8], path: Path) -> None:
    """Write one slice (rows, columns) uint8 as a grey PNG, aside first and then moved into place."""
    if array.ndim != 2 or array.dtype != np.uint8:
        raise ValueError(f"a PNG slice is (rows, columns) uint8, got {array.dtype} of shape {array.shape}")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    Image.fromarray(np.ascontiguousarray(array)).save(aside, format="PNG")
    aside.replace(path)


def _read_png(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            mode, kind = picture.mode, picture.format
            # load() reads to the end: a torn file fails here and not as black rows
            array = np.asarray(picture)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadInput(
            "png_unreadable",
            path.name,
            f"unreadable picture ({error.__class__.__name__})",
            "a whole PNG",
            "fetch the file again",
        ) from error
    if kind != "PNG" or mode not in ("L", "1"):
        raise BadInput(
            "png_mode",
            path.name,
            f"{kind} of mode {mode}",
            "an 8-bit grey PNG (mode L)",
            "convert the label without scaling its values",
        )
    return array.astype(np.uint8)
