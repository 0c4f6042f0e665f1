"""The bytes of a NIfTI file, plain or gzip, read to the end: nothing torn or damaged gets through."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from isal import igzip, igzip_lib

from imaging.errors import BadInput
from imaging.volume import Step

GZIP_MAGIC = b"\x1f\x8b"
PIECE = 2**20
GZIP_MOST = 1040
"""Deflate cannot expand a byte to more than about 1032."""
ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # its stubs call the class an instance
DAMAGE = (EOFError, igzip.BadGzipFile, ISAL_ERROR, zlib.error, struct.error)


class ByteSource(Protocol):
    """What voxels are read from: a file, or a stream that unpacks one."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill `buffer` and return how many bytes were read; 0 at the end."""
        ...


class VoxelStream:
    """Uncompressed bytes of one file, in order. Its errors say where, how many bytes were there and were expected."""

    def __init__(
        self, source: ByteSource, where: str, stored_bytes: int, packed: bool, steps: tuple[Step, ...]
    ) -> None:
        self._source = source
        self._where = where
        self._stored_bytes = stored_bytes
        self._packed = packed
        self._start = b""
        self.steps = steps

    def read_start(self, count: int) -> bytes:
        """Return the first `count` bytes (fewer when the file ends), kept for `read_voxels`."""
        if not self._start:
            self._start = bytes(self._read(count, expected=f"a header of {count} bytes"))
            if is_html(self._start):
                raise html_error(self._where)
        return self._start

    def check_demand(self, demand: int, offset: int, max_bytes: int, shape: tuple[int, ...]) -> None:
        """Refuse a voxel array over `max_bytes`, or one that a file of this size cannot hold, before allocating."""
        if demand > max_bytes:
            raise BadInput(
                "too_large",
                self._where,
                f"a header asking for {demand} bytes of voxels (shape {shape})",
                f"at most {max_bytes} bytes",
                "check the header, or raise max_bytes if the scan is really that large",
            )
        holds = self._stored_bytes * (GZIP_MOST if self._packed else 1)
        if demand + offset > holds:
            raise self._truncated(f"{self._stored_bytes} bytes in the file", demand + offset)

    def read_voxels(self, offset: int, demand: int) -> tuple[bytearray, int]:
        """Return exactly `demand` bytes from `offset` on, and how many bytes follow them; the CRC is checked."""
        total = offset + demand
        voxels = bytearray(demand)
        view = memoryview(voxels)
        head = self._start[offset:]
        view[: len(head)] = head[:demand]
        done = min(len(head), demand)
        spare = len(head) - done
        position = len(self._start)
        while position < offset:
            piece = self._read(min(PIECE, offset - position), expected=f"{total} bytes")
            if not piece:
                raise self._truncated(f"{position} bytes", total)
            position += len(piece)
        while done < demand:
            read = self._fill(view[done : done + PIECE], offset + done, total)
            if not read:
                raise self._truncated(f"{offset + done} bytes", total)
            done += read
        # reading on to the end makes gzip compare its CRC and length
        while piece := self._read(PIECE, expected=f"{total} bytes"):
            spare += len(piece)
        return voxels, spare

    def _fill(self, view: memoryview, position: int, total: int) -> int:
        try:
            return self._source.readinto(view)
        except EOFError as error:
            raise self._truncated(f"about {position} bytes", total) from error
        except DAMAGE as error:
            raise self._damaged(error, f"{total} bytes") from error

    def _read(self, count: int, expected: str) -> bytes:
        try:
            return self._source.read(count)
        except EOFError as error:
            raise BadInput(
                "truncated", self._where, f"a gzip stream that breaks off ({self._stored_bytes} bytes in the file)",
                expected, "fetch the file again",
            ) from error  # fmt: skip
        except DAMAGE as error:
            raise self._damaged(error, expected) from error

    def _truncated(self, found: str, total: int) -> BadInput:
        return BadInput("truncated", self._where, found, f"{total} bytes", "the file is cut short: fetch it again")

    def _damaged(self, error: Exception, expected: str) -> BadInput:
        return BadInput(
            "damaged",
            self._where,
            f"damaged compressed data (CRC or structure: {str(error)[:80]})",
            f"{expected} with a matching CRC",
            "fetch the file again and compare its checksum",
        )


@contextmanager
def open_stream(path: Path, where: str) -> Iterator[VoxelStream]:
    """Open a file by what its first bytes say, not by its name; a gzip file called .nii is noted as a step."""
    stored = path.stat().st_size
    with path.open("rb") as raw:
        start = raw.read(1024)
        raw.seek(0)
        if is_html(start):
            raise html_error(where)
        if not start:
            raise BadInput("truncated", where, "an empty file (0 bytes)", "a NIfTI file", "fetch the file again")
        packed = start.startswith(GZIP_MAGIC)
        if not packed:
            steps = (Step("plain_despite_name", {}),) if path.name.endswith(".gz") else ()
            yield VoxelStream(raw, where, stored, packed, steps)
            return
        steps = () if path.name.endswith(".gz") else (Step("gunzip_despite_name", {}),)
        with igzip.IGzipFile(fileobj=raw, mode="rb") as unpacked:
            yield VoxelStream(unpacked, where, stored, packed, steps)


def html_error(where: str, expected: str = "a NIfTI file") -> BadInput:
    """Return the refusal of a web page saved under a data file's name."""
    return BadInput(
        "html",
        where,
        "HTML, probably a login page",
        expected,
        "log in on the data set's page, download again and replace this file",
    )


def is_html(start: bytes) -> bool:
    """Tell whether the first bytes of a file are those of a web page."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body", b"<script"))
