"""Stored DICOM pixels to Hounsfield units, slice by slice."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from imaging.dicom_header import PIXEL_TAGS, SliceHeader, open_quietly
from imaging.errors import BadInput

AIR_HU = -1024
DECODE_ERRORS = (RuntimeError, ValueError, AttributeError, KeyError, TypeError, NotImplementedError, EOFError, OSError)


@dataclass(frozen=True, eq=False)
class HuSlice:
    """hu: (rows, columns) int16, nothing below -1024. padding: voxels set to -1024. slope, intercept: as applied."""

    hu: NDArray[np.int16]
    padding: int
    slope: float
    intercept: float


def read_hu(header: SliceHeader, where: str) -> HuSlice:
    """Return one slice in HU: its own rescale applied, padding and everything below -1024 set to -1024."""
    slope = float(header.numbers("RescaleSlope", 1, where)[0])
    intercept = float(header.numbers("RescaleIntercept", 1, where)[0])
    stored, padding = _decode(header, where)
    if stored is None:
        hu = _decode_with_gdcm(header, where)
    elif slope.is_integer() and intercept.is_integer():
        hu = stored.astype(np.int64) * int(slope) + int(intercept)
    else:
        hu = np.rint(stored * slope + intercept)
    outside = hu < AIR_HU
    if stored is not None:
        outside |= _is_padding(stored, padding)
    highest = float(hu.max())
    if highest > np.iinfo(np.int16).max:
        raise BadInput(
            "hu_wrapped",
            f"{where}, {header.name}",
            f"{highest:g} HU after RescaleSlope {slope:g}, RescaleIntercept {intercept:g}",
            "HU of at most 32767",
            "check RescaleSlope, RescaleIntercept and PixelRepresentation",
        )
    return HuSlice(np.where(outside, AIR_HU, hu).astype(np.int16), int(outside.sum()), slope, intercept)


def _decode(header: SliceHeader, where: str) -> tuple[NDArray[Any] | None, tuple[Any, Any]]:
    """Return the stored values (rows, columns) and the padding tags; None when no plugin knows the compression."""
    syntax = "unknown"
    try:
        with open_quietly(header.path) as file:
            data = pydicom.dcmread(file, specific_tags=list(PIXEL_TAGS))
            syntax = data.file_meta.TransferSyntaxUID.name
            padding = (data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit"))
            if "PixelData" not in data:
                raise _no_pixels(header, where, "no PixelData (7FE0,0010)", syntax)
            return _decoded(data, padding)
    except BadInput:
        raise
    except DECODE_ERRORS as error:
        raise _no_pixels(header, where, f"pixels that do not decode ({error.__class__.__name__})", syntax) from error


def _decoded(data: Any, padding: tuple[Any, Any]) -> tuple[NDArray[Any] | None, tuple[Any, Any]]:
    decoder = None
    if data.file_meta.TransferSyntaxUID.is_compressed:
        with contextlib.suppress(NotImplementedError):
            decoder = pydicom.pixels.get_decoder(data.file_meta.TransferSyntaxUID)
        if decoder is None or not decoder.is_available:
            return None, padding
    stored: NDArray[Any] = data.pixel_array
    return stored, padding


def _decode_with_gdcm(header: SliceHeader, where: str) -> NDArray[Any]:
    """Return HU (rows, columns) through SimpleITK's GDCM, which knows JPEG lossless and JPEG-LS."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(header.path))
    try:
        values: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise _no_pixels(header, where, "pixels that no decoder here knows", "compressed") from error
    hu: NDArray[np.int64] = np.rint(values.reshape(values.shape[-2:])).astype(np.int64)
    return hu


def _is_padding(stored: NDArray[Any], padding: tuple[Any, Any]) -> NDArray[np.bool_]:
    value, limit = (None if v in (None, "") or isinstance(v, bytes) else int(v) for v in padding)
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    if stored.dtype.kind == "i" and value > np.iinfo(np.int16).max:
        value -= 65536  # written as unsigned beside signed pixels
    low, high = sorted((value, value if limit is None else limit))
    within: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return within


def _no_pixels(header: SliceHeader, where: str, found: str, syntax: str) -> BadInput:
    return BadInput(
        "dicom_pixels",
        f"{where}, {header.name}",
        f"{found}, transfer syntax {syntax}",
        "whole pixel data in a supported transfer syntax",
        "fetch the file again, or export the series uncompressed",
    )
