"""Stored DICOM pixels to Hounsfield units, slice by slice."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)

from imaging.dicom_header import PIXEL_TAGS, SliceHeader, open_quietly
from imaging.errors import BadInput

AIR_HU = -1024
UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
MOST_BYTES = 8 * 2**30
"""Stored pixels of one file; a whole-body CT of 2000 slices holds 1 GiB."""
DECODE_ERRORS = (
    RuntimeError,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    NotImplementedError,
    EOFError,
    OSError,
    zlib.error,
)


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
    stored, padding = read_stored(header, where)
    if slope.is_integer() and intercept.is_integer():
        hu = stored.astype(np.int64) * int(slope) + int(intercept)
    else:
        hu = np.rint(stored * slope + intercept)
    outside = (hu < AIR_HU) | _is_padding(stored, padding)
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


def read_stored(header: SliceHeader, where: str) -> tuple[NDArray[Any], tuple[Any, Any]]:
    """Return the stored values of one slice (rows, columns) and its padding tags (value, range limit).

    The frames of one file are decoded together, on the first call. Raises BadInput ("dicom_syntax") for a transfer
    syntax that no decoder here knows, and for pixels that do not decode, are no grey values or are too many.
    """
    if header.frame is None:
        stored, padding = _decode(header, where)
        return stored.reshape(stored.shape[-2:]), padding
    if "pixels" not in header.decoded:
        header.decoded["pixels"] = _decode(header, where)
    stored, padding = header.decoded["pixels"]
    return stored.reshape(-1, *stored.shape[-2:])[header.frame], padding


def iter_stored(data: Any, where: str) -> Iterator[NDArray[Any]]:
    """Yield the stored values of each frame of an open multi-frame data set, (rows, columns)."""
    try:
        if int(data.BitsAllocated) == 1 and data.file_meta.TransferSyntaxUID in UNCOMPRESSED:
            yield from _iter_bits(data)
        else:
            yield from pydicom.pixels.iter_pixels(data)
    except DECODE_ERRORS as error:
        raise BadInput(
            "dicom_pixels", where,
            f"pixels that do not decode ({error.__class__.__name__}), transfer syntax "
            f"{_named(data.file_meta.TransferSyntaxUID)}",
            "whole pixel data", "fetch or export the file again",
        ) from error  # fmt: skip


def _iter_bits(data: Any) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of one bit a pixel, which run on without a gap: a frame may begin inside a byte.

    pydicom 3.0.2 cannot take such frames apart when their pixels are no multiple of 8.
    """
    frames, rows, columns = int(data.NumberOfFrames), int(data.Rows), int(data.Columns)
    packed = np.frombuffer(data.PixelData, dtype=np.uint8)
    if packed.size * 8 < frames * rows * columns:
        raise ValueError(f"{packed.size} bytes for {frames} frames of {rows} x {columns} bits")
    for frame in range(frames):
        first, last = frame * rows * columns, (frame + 1) * rows * columns
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        yield bits[first % 8 :][: rows * columns].reshape(rows, columns)


def _decode_extended(data: Any, header: SliceHeader) -> NDArray[Any]:
    """Return 12-bit JPEG Extended pixels through GDCM itself: pydicom's use of it stops at 8 bits (3.0.2)."""
    for silence in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        silence()  # its messages would name the file
    reader = gdcm.ImageReader()
    reader.SetFileName(str(header.path))
    if not reader.Read():
        raise RuntimeError("GDCM cannot read the pixels")
    # its bindings return bytes dressed up as text
    raw = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    signed = int(data.get("PixelRepresentation") or 0) == 1
    return np.frombuffer(raw, dtype="<i2" if signed else "<u2").reshape(-1, int(data.Rows), int(data.Columns))


def _decode(header: SliceHeader, where: str) -> tuple[NDArray[Any], tuple[Any, Any]]:
    """Return all stored values of a file, (rows, columns) or (frames, rows, columns), and the padding tags."""
    syntax = "unknown"
    try:
        with open_quietly(header.path) as file:
            data = pydicom.dcmread(file, specific_tags=list(PIXEL_TAGS))
            uid = data.file_meta.TransferSyntaxUID
            syntax = _named(uid)
            padding = (data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit"))
            if "PixelData" not in data:
                raise _no_pixels(header, where, "no PixelData (7FE0,0010)", syntax)
            check_decoder(uid, f"{where}, {header.name}")
            _check_demand(data, header, where)
            extended = uid == JPEGExtended12Bit and int(data.get("BitsStored") or 8) > 8
            stored: NDArray[Any] = _decode_extended(data, header) if extended else data.pixel_array
    except BadInput:
        raise
    except DECODE_ERRORS as error:
        raise _no_pixels(header, where, f"pixels that do not decode ({error.__class__.__name__})", syntax) from error
    return stored, padding


def _named(uid: Any) -> str:
    return f"{uid.name} ({uid})" if uid.name != uid else str(uid)


def check_decoder(uid: Any, where: str) -> None:
    """Raise BadInput ("dicom_syntax"), naming the transfer syntax, when no decoder for it is installed."""
    if uid in UNCOMPRESSED:
        return
    try:
        known = pydicom.pixels.get_decoder(uid).is_available
    except NotImplementedError:
        known = False
    if not known:
        raise BadInput(
            "dicom_syntax",
            where,
            f"transfer syntax {_named(uid)}, for which no decoder is installed",
            "uncompressed, deflated, RLE, JPEG, JPEG-LS or JPEG 2000 pixels",
            "convert the series to JPEG 2000 lossless or to an uncompressed transfer syntax",
        )


def _check_demand(data: Any, header: SliceHeader, where: str) -> None:
    """Refuse what is no grey picture, or too much of it, before a decoder takes memory for it."""
    frames = data.get("NumberOfFrames")
    shape = [1 if frames in (None, "") else int(frames), int(data.get("Rows") or 0), int(data.get("Columns") or 0)]
    if int(data.get("SamplesPerPixel") or 1) != 1:
        raise BadInput(
            "dicom_colour", f"{where}, {header.name}", f"SamplesPerPixel (0028,0002) {data.SamplesPerPixel}",
            "one grey value a pixel", "pick the CT series, not a colour picture of it",
        )  # fmt: skip
    demand = math.prod(shape) * max(int(data.get("BitsAllocated") or 16) // 8, 1)
    if demand > MOST_BYTES:
        raise BadInput(
            "too_large", f"{where}, {header.name}", f"{demand} bytes of pixels (frames, rows, columns {shape})",
            f"at most {MOST_BYTES} bytes", "check NumberOfFrames, Rows and Columns, or export the series again",
        )  # fmt: skip


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
