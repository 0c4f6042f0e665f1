"""NRRD files (3D Slicer) read to the last byte, as strictly as NIfTI ones; voxels and header may lie in two files."""

from __future__ import annotations

import bz2
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from isal import igzip
from nrrd.errors import NRRDError
from numpy.typing import NDArray

from imaging.errors import BadInput
from imaging.nifti import check_finite, check_lengths
from imaging.nifti_bytes import VoxelStream, html_error, is_html
from imaging.volume import Affine, Step, Volume

SUFFIXES = (".nrrd", ".nhdr")
HEADER_MOST = 2**20
"""A header this long (1 MiB) without the empty line that ends it is none."""

TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
}
"""Patient spaces of the format definition (teem.sourceforge.net/nrrd/format.html) and their signs towards RAS."""
SHORT_SPACES = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": "left-posterior-superior"}
MM_PER_UNIT = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}


@dataclass(frozen=True)
class _Header:
    """What the header says. start: first byte behind it. data: the file of the voxels. axes: places of the 3 axes."""

    fields: dict[str, Any]
    start: int
    data: Path
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def attached(self) -> bool:
        """Whether the voxels follow the header in one file."""
        return "data file" not in self.fields and "datafile" not in self.fields


def read_nrrd(path: Path, *, max_bytes: int = 8 * 2**30, where: str | None = None) -> Volume:
    """Return the volume of a .nrrd or .nhdr file, array axes in the order on disk, affine in RAS mm.

    Encodings raw, gzip and bzip2; voxels of a detached header only from a file in the same folder. Axes of size 1
    beside the three in space are dropped (a step). max_bytes, where: as in `imaging.nifti.read_nifti`.
    Raises BadInput for whatever cannot be trusted; FileNotFoundError when there is no such file.
    pynrrd parses the header; the voxels come through the stream that reads NIfTI, because pynrrd has no limit on what
    it unpacks, follows a detached header to any folder, and does not see a gzip stream cut in its checksum (1.1.3).
    """
    place = where if where is not None else path.name
    header = _read_header(path, place)
    array, affine, steps = _read_voxels(header, max_bytes, place)
    return Volume(array.reshape(tuple(header.sizes[axis] for axis in header.axes), order="F"), affine, steps)


def read_nrrd_layers(
    path: Path, *, max_bytes: int = 8 * 2**30, where: str | None = None
) -> list[tuple[Volume, dict[int, str]]]:
    """Return the layers of a .seg.nrrd of 3D Slicer, each with label value -> name of its segments.

    Segments that overlap lie in layers of their own, along an axis of the kind `list`; a file without it is one layer.
    Refused as by `read_nrrd`, and where two segments of a layer have one value.
    """
    place = where if where is not None else path.name
    header = _read_header(path, place, layered=True)
    array, affine, steps = _read_voxels(header, max_bytes, place)
    whole = array.reshape(header.sizes, order="F")
    beside = tuple(axis for axis in range(len(header.sizes)) if axis not in header.axes)
    layers = whole.transpose(*beside, *header.axes).reshape(-1, *(header.sizes[axis] for axis in header.axes))
    segments = _segments(header, place, len(layers))
    return [(Volume(layer, affine, steps), named) for layer, named in zip(layers, segments, strict=True)]


def _read_voxels(header: _Header, max_bytes: int, where: str) -> tuple[NDArray[Any], Affine, tuple[Step, ...]]:
    """Return all voxels in one row, as they lie on disk, checked to the end; the affine, and what was done."""
    affine, steps = _affine(header, where)
    dtype = _dtype(header.fields, where)
    demand = math.prod(header.sizes) * dtype.itemsize
    with _open_voxels(header, where) as stream:
        skip = _skip(header, demand, where)
        stream.check_demand(demand, skip, max_bytes, header.sizes)
        stored, trailing = stream.read_voxels(skip, demand)
    if trailing:
        steps.append(Step("ignore_trailing_bytes", {"bytes": trailing}))
    array = np.frombuffer(stored, dtype=dtype).astype(dtype.newbyteorder("="), copy=False)
    check_finite(array.reshape(header.sizes, order="F"), where)
    return array, affine, tuple(steps)


def nrrd_files(path: Path, where: str | None = None) -> tuple[Path, ...]:
    """Return the files that hold one image: the file itself, and the voxels' file of a detached header."""
    header = _read_header(path, where if where is not None else path.name)
    return (path,) if header.attached else (path, header.data)


def nrrd_segments(path: Path, where: str | None = None) -> dict[int, str]:
    """Return label value -> name of the segments that 3D Slicer writes into a .seg.nrrd header; empty for other files.

    Raises BadInput for segments without a value and for several of one value, which a single layer cannot hold.
    """
    place = where if where is not None else path.name
    return _segments(_read_header(path, place), place, 1)[0]


def _segments(header: _Header, where: str, layers: int) -> list[dict[int, str]]:
    """Return label value -> name of the segments of each layer."""
    found: list[dict[int, str]] = [{} for _ in range(layers)]
    names = {
        match[1]: str(text)
        for field, text in header.fields.items()
        if (match := re.fullmatch(r"Segment(\d+)_Name", field))
    }
    for ordinal, name in names.items():
        value = str(header.fields.get(f"Segment{ordinal}_LabelValue", ""))
        layer = str(header.fields.get(f"Segment{ordinal}_Layer", "0")) if layers > 1 else "0"
        if not layer.isdigit() or int(layer) >= layers:
            raise _bad_header(where, f"segment {ordinal} in layer {layer}", f"one of {layers} layers, from 0")
        if not value.isdigit() or int(value) in found[int(layer)]:
            raise _bad_header(where, f"segment {ordinal} of label value {value or '(none)'}", "a value of its own")
        found[int(layer)][int(value)] = name
    return found


def _read_header(path: Path, where: str, *, layered: bool = False) -> _Header:
    with path.open("rb") as file:
        start = file.read(HEADER_MOST)
    if is_html(start):
        raise html_error(where, "an NRRD file")
    ends = [start.find(mark) + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if mark in start]
    end = min(ends, default=len(start))
    if not start.startswith(b"NRRD") or (not ends and len(start) == HEADER_MOST):
        raise _bad_header(where, f"{len(start)} readable bytes starting {start[:8].hex()}", "an NRRD header")
    try:
        fields = dict(nrrd.read_header(start[:end].splitlines(keepends=True)))
    except (NRRDError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _bad_header(where, f"a header that does not parse ({error.__class__.__name__})", "NRRD fields") from error
    missing = [name for name in ("type", "dimension", "sizes", "encoding") if name not in fields]
    if missing:
        raise _bad_header(where, f"no field {', '.join(missing)}", "type, dimension, sizes and encoding")
    sizes = tuple(int(n) for n in fields["sizes"])
    name = fields.get("data file", fields.get("datafile"))
    data = path if name is None else _beside(path, str(name), where)
    if name is None and not ends:
        raise BadInput("truncated", where, f"a header and no voxels ({len(start)} bytes)", "an empty line, then voxels",
                       "fetch the file again")  # fmt: skip
    return _Header(fields, end, data, _spatial_axes(fields, sizes, where, layered=layered), sizes)


def _beside(path: Path, name: str, where: str) -> Path:
    """Return the file that a detached header names, if it is one plain file of the same folder."""
    data = path.parent / name
    # a link could lead out of the folder as well as a path can
    if "/" in name or "\\" in name or name in (".", "..") or data.is_symlink() or not data.is_file():
        raise BadInput(
            "detached_header",
            where,
            "a header whose voxels are not in one plain file of the same folder",
            "`data file:` with the name of a file beside the header",
            "put both files into one folder, or save the image as one .nrrd file",
        )
    return data


def _spatial_axes(fields: dict[str, Any], sizes: tuple[int, ...], where: str, *, layered: bool) -> tuple[int, ...]:
    """Return the places of the three axes in space; every other one must have size 1, but for one of layers."""
    directions = fields.get("space directions")
    count = len(sizes)
    in_space: list[int] = []
    if directions is not None and len(directions) == count:
        rows = [np.asarray(row, dtype=np.float64) if row is not None else np.array([np.nan]) for row in directions]
        in_space = [axis for axis, row in enumerate(rows) if not np.isnan(row).all()]
    rest = [sizes[axis] for axis in range(count) if axis not in in_space]
    if (
        int(fields["dimension"]) != count
        or min(sizes, default=0) < 1
        or (len(in_space) == 3 and max(rest, default=1) > 1 and not (layered and len(rest) == 1))
    ):
        raise BadInput(
            "dimensions", where, f"{fields['dimension']} dimensions of sizes {sizes}",
            "three axes in space, further ones of size 1 only",
            "give one 3-D image per file (split time points, channels or overlapping segments)",
        )  # fmt: skip
    if len(in_space) != 3:
        if count != 3:
            raise BadInput("dimensions", where, f"{count} dimensions of sizes {sizes}", "three axes in space",
                           "give one 3-D image per file")  # fmt: skip
        raise _bad_header(where, f"{len(in_space)} space directions for 3 axes", "one direction vector for each axis")
    return tuple(in_space)


def _affine(header: _Header, where: str) -> tuple[Affine, list[Step]]:
    fields = header.fields
    space = str(fields.get("space", "")).strip().lower()
    space = SHORT_SPACES.get(space, space)
    if space not in TO_RAS:
        raise _bad_header(where, f"space {space or '(none)'!r}", f"one of {', '.join(TO_RAS)}")
    columns = np.array([fields["space directions"][axis] for axis in header.axes], dtype=np.float64).T  # (3, axes)
    origin = np.asarray(fields.get("space origin", ()), dtype=np.float64)
    if (
        columns.shape != (3, 3)
        or origin.shape != (3,)
        or not np.isfinite(columns).all()
        or not np.isfinite(origin).all()
    ):
        raise _bad_header(where, f"space directions {columns.T.tolist()}, space origin {origin.tolist()}",
                          "three vectors and a point of three finite numbers each")  # fmt: skip
    check_lengths(np.linalg.norm(columns, axis=0), "space directions", where)
    if abs(determinant := float(np.linalg.det(columns))) < 1e-9:
        raise BadInput("affine", where, f"space directions of determinant {determinant:g}",
                       "other than 0 (voxel volume in mm3)", "repair the file's header")  # fmt: skip
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    affine = np.diag([*TO_RAS[space], 1.0]) @ affine
    steps: list[Step] = []
    if len(header.axes) < len(header.sizes):
        steps.append(Step("drop_singleton_axes", {"shape_before": list(header.sizes)}))
    units = {str(unit).strip().lower() for unit in fields.get("space units", [])}
    if len(units) > 1 or not units <= set(MM_PER_UNIT):
        raise _bad_header(where, f"space units {sorted(units)}", "mm for all axes")
    factor = MM_PER_UNIT[units.pop()] if units else 1.0
    if factor != 1.0:
        affine = np.diag([factor] * 3 + [1.0]) @ affine
        steps.append(Step("convert_units", {"mm_per_unit": factor}))
    return affine, steps


def _dtype(fields: dict[str, Any], where: str) -> np.dtype[Any]:
    found = str(fields["type"]).strip().lower()
    code = next((code for code, names in TYPES.items() if found in names), None)
    if code is None:
        raise BadInput("voxel_type", where, f"type {found!r}", "one real number a voxel (integer, float or double)",
                       "convert block voxels to one grey value or label")  # fmt: skip
    endian = str(fields.get("endian", "")).strip().lower()
    if code[1] != "1" and endian not in ("little", "big"):
        raise _bad_header(where, f"endian {endian or '(none)'!r} for type {found!r}", "little or big")
    return np.dtype(code).newbyteorder("<" if endian != "big" else ">")


def _skip(header: _Header, demand: int, where: str) -> int:
    """Return the bytes before the voxels, counted in the unpacked stream as the format defines it."""
    lines = int(header.fields.get("line skip", header.fields.get("lineskip", 0)))
    skip = int(header.fields.get("byte skip", header.fields.get("byteskip", 0)))
    if lines or skip < -1 or (skip == -1 and _encoding(header, where) != "raw"):
        raise _bad_header(where, f"line skip {lines}, byte skip {skip}", "no line skip, a byte skip of 0 or more")
    if skip == -1:  # the voxels are the end of the file
        return max(header.data.stat().st_size - (header.start if header.attached else 0) - demand, 0)
    return skip


def _encoding(header: _Header, where: str) -> str:
    found = str(header.fields["encoding"]).strip().lower()
    if found not in ENCODINGS:
        raise _bad_header(where, f"encoding {found!r}", "raw, gzip or bzip2")
    return ENCODINGS[found]


@contextmanager
def _open_voxels(header: _Header, where: str) -> Iterator[VoxelStream]:
    """Open the voxels' bytes where they begin, unpacked."""
    encoding = _encoding(header, where)
    start = header.start if header.attached else 0
    with header.data.open("rb") as raw:
        stored = header.data.stat().st_size - start
        raw.seek(start)
        if encoding == "raw":
            yield VoxelStream(raw, where, stored, False, ())
        elif encoding == "gzip":
            with igzip.IGzipFile(fileobj=raw, mode="rb") as unpacked:
                yield VoxelStream(unpacked, where, stored, True, ())
        else:
            with bz2.BZ2File(raw) as unpacked_bz2:
                # bzip2 knows no useful bound on how far a byte expands: only max_bytes limits it
                yield VoxelStream(_Bzip2(unpacked_bz2), where, 2**62, False, ())


class _Bzip2:
    """A bzip2 stream whose damage shows as the same errors as that of gzip."""

    def __init__(self, source: bz2.BZ2File) -> None:
        self._source = source

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; raises zlib.error for damaged data."""
        with self._guarded():
            return self._source.read(size)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill `buffer` and return how many bytes were read; raises zlib.error for damaged data."""
        with self._guarded():
            return self._source.readinto(buffer)

    @staticmethod
    @contextmanager
    def _guarded() -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise zlib.error(str(error)) from error


def _bad_header(where: str, found: str, expected: str) -> BadInput:
    return BadInput("nrrd_header", where, found, expected, "save the image again with its full geometry")
