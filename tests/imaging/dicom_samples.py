"""A small CT series on disk, and ways to spoil its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from imaging_samples import linear_scan, oriented_affine

from imaging.dicom_write import write_series
from imaging.volume import Volume

LPS = oriented_affine((0.8, 0.9, 5.0), (20.0, 30.0, -100.0), signs=(-1.0, -1.0, 1.0))
SHAPE = (6, 5, 4)


def scan() -> Volume:
    """An int16 scan in the axis order of a read series: columns, rows, slices towards superior."""
    return linear_scan(SHAPE, LPS, np.int16)


def write(folder: Path, volume: Volume | None = None, **options: Any) -> list[Path]:
    return write_series(scan() if volume is None else volume, folder, patient_id="4711", **options)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a file's data set in place."""
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def edit_all(paths: list[Path], change: Callable[[Any], None]) -> None:
    for path in paths:
        edit(path, change)
