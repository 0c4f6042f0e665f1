"""A small CT series on disk, and ways to spoil its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from imaging_samples import linear_scan, oriented_affine
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

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


def merge(paths: list[Path], target: Path, order: list[int] | None = None, drop: tuple[str, ...] = ()) -> Path:
    """Write the slices as one enhanced CT file, frames in the order given; `drop` leaves functional groups out."""
    slices = [pydicom.dcmread(paths[k]) for k in (order or range(len(paths)))]
    data = slices[0].copy()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames = len(slices)
    data.PixelData = b"".join(one.PixelData for one in slices)
    data.PerFrameFunctionalGroupsSequence = [_groups(one, drop) for one in slices]
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = data.PixelSpacing, data.SliceThickness
    orientation.ImageOrientationPatient = data.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    data.SharedFunctionalGroupsSequence = [shared]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
                    "RescaleSlope", "RescaleIntercept", "RescaleType", "InstanceNumber"):  # fmt: skip
        delattr(data, keyword)
    target.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(target, enforce_file_format=True)
    return target


def _groups(one: Any, drop: tuple[str, ...]) -> Dataset:
    groups, position, values = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = one.ImagePositionPatient
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = one.RescaleSlope, one.RescaleIntercept, "HU"
    groups.PlanePositionSequence, groups.PixelValueTransformationSequence = [position], [values]
    for keyword in drop:
        delattr(groups, keyword)
    return groups
