"""Chunks of a shard, read and decoded straight from its file; `shard_object.py` does the same in an object store.

They are the voxels that zarr gives, without its planning, threads and copies, which cost several times the decoding:
docs/design/0002-lake-layout.md.
"""

from __future__ import annotations

import hashlib
import os
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation
from zarr.core.metadata import ArrayV3Metadata

from catalog.errors import LakeDamage
from catalog.manifest import FileEntry
from catalog.seals import CHECKSUM_BYTES, INTACT, noted_checksums

# A worker decodes with one thread; numcodecs would otherwise start a pool for chunks too small to be shared out.
blosc.use_threads = False

WHOLE_CHECK_BYTES = 2**20
"""Shards up to this length are compared with their SHA-256 when they are opened: half a millisecond. Of longer ones,
each chunk that is read is compared with the checksum noted when it was written; where none were noted, they are too."""

_NEVER_WRITTEN = np.uint64(2**64 - 1)

Span = tuple[int, slice, slice]
"""A chunk's number along one axis, the part of the box that it fills, and the part of the chunk that lies there."""


def _spans(part: slice, size: int) -> list[Span]:
    """Return the chunks of `size` voxels that `part` touches along one axis."""
    found = []
    for number in range(part.start // size, -(-part.stop // size) if part.stop > part.start else part.start // size):
        begin = number * size
        low, high = max(part.start, begin), min(part.stop, begin + size)
        found.append((number, slice(low - part.start, high - part.start), slice(low - begin, high - begin)))
    return found


def fits(array: zarr.Array[Any]) -> bool:
    """Return whether `array` is laid out as the lake's writer does it: one shard of checked blosc chunks."""
    metadata = array.metadata
    if not isinstance(metadata, ArrayV3Metadata) or array.shards is None or sys.byteorder != "little":
        return False
    sharding = metadata.codecs[0]
    whole = all(n <= shard for n, shard in zip(array.shape, array.shards, strict=True))
    if not isinstance(sharding, ShardingCodec) or len(metadata.codecs) != 1 or not whole:
        return False
    if array.chunks[:-3] != array.shards[:-3] or sharding.index_location is not ShardingCodecIndexLocation.end:
        return False
    chain = [[type(codec) for codec in codecs] for codecs in (sharding.codecs, sharding.index_codecs)]
    if chain != [[BytesCodec, BloscCodec, Crc32cCodec], [BytesCodec, Crc32cCodec]]:
        return False
    endian = [getattr(codecs[0], "endian", None) for codecs in (sharding.codecs, sharding.index_codecs)]
    return all(order is None or order.value == "little" for order in endian)


Ranges = list[list[int]]
"""Offset and length of each chunk asked for."""


@dataclass(frozen=True)
class Look:
    """A shard as it is found at a read. index: (chunks along Z, Y, X, 2), offset and length. fetch: gives ranges."""

    index: NDArray[np.uint64]
    fetch: Callable[[Ranges], Iterable[bytes]]


class Chunks(ABC):
    """One array's only shard, wherever its bytes lie; may be shared by threads.

    file: as messages name it. entry: its line in the manifest.
    """

    def __init__(self, case_id: str, file: str, array: zarr.Array[Any], entry: FileEntry) -> None:
        self._case_id = case_id
        self._file = file
        self._entry = entry
        self._dtype = np.dtype(array.dtype)
        self._lead = array.shape[:-3]
        self._chunk = array.chunks[-3:]
        shards = cast(tuple[int, ...], array.shards)
        self._grid = tuple(n // size for n, size in zip(shards[-3:], self._chunk, strict=True))
        noted = noted_checksums(array.attrs)
        self._noted = None if noted is None else noted.reshape(self._grid)

    @abstractmethod
    def _look(self) -> Look:
        """Return the shard, sound as far as can be told without its chunks; else raise LakeDamage."""

    def read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        """Return the voxels of `box` (slices of Z, Y, X within the grid) as (Z, Y, X) or (W, Z, Y, X).

        Raises LakeDamage where a chunk is missing or fails its checksum, or the file is no longer what was written.
        """
        look = self._look()
        shape = tuple(part.stop - part.start for part in box)
        found = np.empty((*self._lead, *shape), dtype=self._dtype)
        chunk = np.empty((*self._lead, *self._chunk), dtype=self._dtype)
        spans = [_spans(part, size) for part, size in zip(box, self._chunk, strict=True)]
        if not all(spans):
            return found
        touched = tuple(slice(axis[0][0], axis[-1][0] + 1) for axis in spans)
        where = look.index[touched].reshape(-1, 2)
        if (where[:, 0] == _NEVER_WRITTEN).any():
            raise self._damage("a chunk that was never written", "every chunk written")
        ranges = where.tolist()
        noted = [None] * len(ranges) if self._noted is None else self._noted[touched].ravel().tolist()
        before = b""
        for (offset, length), stored, checksum, (z, y, x) in zip(
            ranges, look.fetch(ranges), noted, product(*spans), strict=True
        ):
            if len(stored) != length or google_crc32c.value(stored) != INTACT:
                raise self._damage(f"a chunk at byte {offset} that fails its checksum", f"{length} sound bytes")
            if checksum is not None and int.from_bytes(stored[-CHECKSUM_BYTES:], "little") != checksum:
                raise self._damage(f"a chunk at byte {offset} of other content", f"the one of CRC32C {checksum:08x}")
            if stored != before:  # neighbours without any class are stored alike
                self._decode(stored, offset, chunk)
                before = stored
            found[..., z[1], y[1], x[1]] = chunk[..., z[2], y[2], x[2]]
        return found

    def _decode(self, stored: bytes, offset: int, chunk: NDArray[Any]) -> None:
        try:
            blosc.decompress(memoryview(stored)[:-CHECKSUM_BYTES], chunk)
        except (RuntimeError, ValueError) as error:
            raise self._damage(f"a chunk at byte {offset} that does not unpack ({error})", "a blosc buffer") from error

    @property
    def _index_bytes(self) -> int:
        """Length of the index, at the shard's end."""
        return 16 * int(np.prod(self._grid)) + CHECKSUM_BYTES

    def _index_of(self, stored: bytes) -> NDArray[np.uint64]:
        if len(stored) != self._index_bytes or google_crc32c.value(stored) != INTACT:
            raise self._damage("an index that fails its checksum", f"{self._index_bytes} sound bytes at the end")
        return np.frombuffer(stored, "<u8", count=self._index_bytes // 8).reshape(*self._grid, 2)

    def _damage(self, found: str, expected: str) -> LakeDamage:
        return LakeDamage(self._case_id, self._file, found, expected)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class _Opened:
    """A shard's file as it was when its index was read."""

    descriptor: int
    seen: tuple[int, ...]
    look: Look


class Shard(Chunks):
    """A shard in a local folder, its file kept open; outlives a fork.

    Each read asks the file system whether the file is still the one that was opened. If not, it must be the bytes of
    `entry` again, all of them; a shard that was deleted, emptied, torn or replaced is never read as air.
    """

    def __init__(self, path: Path, case_id: str, file: str, array: zarr.Array[Any], entry: FileEntry) -> None:
        super().__init__(case_id, file, array, entry)
        self._path = path
        self._opened = self._open(whole=self._noted is None or entry.size <= WHOLE_CHECK_BYTES)

    @classmethod
    def of(cls, folder: Path, case_id: str, file: str, array: zarr.Array[Any], entry: FileEntry) -> Shard | None:
        """Return the shard of `array`, whose folder is given, or None where it is laid out in another way."""
        if not fits(array):
            return None
        return cls(folder / array.metadata.encode_chunk_key((0,) * array.ndim), case_id, file, array, entry)

    def _look(self) -> Look:
        """Return the opened file after a look whether it is still in place and unchanged."""
        opened = self._opened
        try:
            if _identity(self._path.stat()) == opened.seen:
                return opened.look
        except OSError as error:
            raise self._damage(f"no readable file ({error.strerror})", f"{self._entry.size} bytes") from error
        self._opened = self._open(whole=True)
        return self._opened.look

    def _open(self, whole: bool) -> _Opened:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._damage(f"no readable file ({error.strerror})", f"{self._entry.size} bytes") from error
        try:
            status = os.fstat(descriptor)
            if status.st_size != self._entry.size:
                raise self._damage(f"{status.st_size} bytes", f"{self._entry.size} bytes")
            if whole and (digest := _sha256(descriptor)) != self._entry.sha256:
                raise self._damage(f"SHA-256 {digest}", f"SHA-256 {self._entry.sha256}")
            index = self._index_of(os.pread(descriptor, self._index_bytes, max(0, status.st_size - self._index_bytes)))
            look = Look(index, lambda ranges: (os.pread(descriptor, length, offset) for offset, length in ranges))
            opened = _Opened(descriptor, _identity(status), look)
        except BaseException:
            os.close(descriptor)
            raise
        weakref.finalize(opened, os.close, descriptor)
        return opened


def _sha256(descriptor: int) -> str:
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
