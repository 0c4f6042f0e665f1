"""What a shard must hold, chunk by chunk: its checksums are noted in the array's metadata, which the manifest seals.

A chunk's own crc32c says that it is whole, not that it is the right one: a shard of another case or of an older version
passes it. The manifest's SHA-256 would tell, but costs reading the shard to its end before the first patch. So writing
notes the checksum of every chunk in `zarr.json`, and reading compares those of the chunks it touched.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ShardingCodec

ATTRIBUTE = "chunk_crc32c"
"""Attribute of an array: base64 of little-endian uint32, one a chunk in C order."""

_CHECKSUM = 4


class WrongChunk(ValueError):
    """A chunk that is not the one that was written there."""


def chunk_grid(array: zarr.Array[Any]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the chunk shape and the number of chunks along each axis of an array of one shard.

    None where chunks do not end with their crc32c, or the shard not with its index.
    """
    codecs = getattr(array.metadata, "codecs", ())
    sharding = codecs[0] if codecs else None
    if not isinstance(sharding, ShardingCodec) or array.shards is None:
        return None
    if sharding.index_location.value != "end" or not isinstance(sharding.codecs[-1], Crc32cCodec):
        return None
    if any(length > shard for length, shard in zip(array.shape, array.shards, strict=True)):
        return None
    return sharding.chunk_shape, tuple(n // c for n, c in zip(array.shards, sharding.chunk_shape, strict=True))


def read_index(descriptor: int, grid: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return where each chunk of an open shard ends in the file, shape `grid`; WrongChunk where one is not there."""
    length = int(np.prod(grid)) * 16
    start = os.fstat(descriptor).st_size - length - _CHECKSUM
    raw = os.pread(descriptor, length, start) if start >= 0 else b""
    if len(raw) != length:
        raise WrongChunk(f"{start + length + _CHECKSUM} bytes, which hold no index of {length} bytes")
    index = np.frombuffer(raw, "<u8").reshape(*grid, 2)
    ends: NDArray[np.uint64] = index.sum(-1)  # of one that is absent, 2**64 - 1 twice, far beyond the file
    if (ends > start).any() or (ends < _CHECKSUM).any():
        raise WrongChunk("an index that names chunks outside of the file")
    return ends


def read_checksums(descriptor: int, ends: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the crc32c before each of the places `ends` of an open shard, (n,)."""
    raw = b"".join(os.pread(descriptor, _CHECKSUM, int(end) - _CHECKSUM) for end in ends.ravel())
    if len(raw) != ends.size * _CHECKSUM:
        raise WrongChunk("a file shorter than its index says")
    return np.frombuffer(raw, "<u4")


def note_checksums(array: zarr.Array[Any], folder: Path) -> None:
    """Add the checksums of all chunks to the attributes of an array just written into `folder`, its shard whole."""
    grid = chunk_grid(array)
    if grid is None:
        raise ValueError(
            f"{folder}: found an array without crc32c or of several shards, expected one shard; see layout"
        )
    descriptor = os.open(folder.joinpath("c", *["0"] * array.ndim), os.O_RDONLY)
    try:
        checksums = read_checksums(descriptor, read_index(descriptor, grid[1]))
    finally:
        os.close(descriptor)
    array.update_attributes({ATTRIBUTE: base64.b64encode(checksums.tobytes()).decode()})


@dataclass
class Seal:
    """The chunks of one opened local shard: which were compared with what was noted when it was written.

    noted: (chunks along each axis) uint32. A file that was exchanged since is compared anew. Shared by threads.
    """

    path: Path
    chunk: tuple[int, ...]
    noted: NDArray[np.uint32]
    _state: tuple[tuple[int, ...], NDArray[np.uint64], NDArray[np.bool_]] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, array: zarr.Array[Any], path: Path) -> Seal | None:
        """Return the seal of an opened array whose shard is `path`; None for one written before there were any."""
        grid, noted = chunk_grid(array), array.attrs.get(ATTRIBUTE)
        if grid is None or noted is None:
            return None
        checksums = np.frombuffer(base64.b64decode(str(noted)), "<u4")
        return cls(path, grid[0], checksums.reshape(grid[1]))

    def check(self, box: tuple[slice, ...]) -> None:
        """Raise WrongChunk unless all chunks that `box` touches are those noted.

        box: slices along the array's axes. Costs one look at the file, and four bytes a chunk at its first time.
        """
        state = self.path.stat()
        identity = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if self._state is None or self._state[0] != identity:
            self._state = (identity, self._index(), np.zeros(self.noted.shape, dtype=bool))
        _, ends, seen = self._state
        touched = tuple(
            slice(part.start // length, -(-part.stop // length)) for part, length in zip(box, self.chunk, strict=True)
        )
        fresh = ~seen[touched]
        if not fresh.any():
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            found = read_checksums(descriptor, ends[touched][fresh])
        finally:
            os.close(descriptor)
        wrong = int((found != self.noted[touched][fresh]).sum())
        if wrong:
            raise WrongChunk(f"{wrong} of {found.size} chunks with another checksum than when the case was written")
        seen[touched] = True

    def _index(self) -> NDArray[np.uint64]:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            return read_index(descriptor, self.noted.shape)
        finally:
            os.close(descriptor)
