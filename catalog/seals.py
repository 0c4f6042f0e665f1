"""The checksum of every chunk, noted in the array's metadata, which the manifest of its row seals.

A chunk's own crc32c says that it is whole, not that it is the right one: a chunk of another case or of an older version
passes. The manifest's SHA-256 would tell, but costs reading a shard to its end before its first patch. So the writer
notes all checksums in `zarr.json`, and whoever reads a chunk compares the one behind it with the one noted.
"""

from __future__ import annotations

import base64
import os
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

ATTRIBUTE = "chunk_crc32c"
"""Attribute of an array: base64 of little-endian uint32, one a chunk in C order."""

CHECKSUM_BYTES = 4
INTACT = 0x48674BC7
"""What CRC32C gives for any bytes with their own little-endian CRC32C behind them."""

_ENTRY_BYTES = 16
"""Of the index, for each chunk: where it begins and how long it is."""

_READ_BYTES = 2**18
"""Read at a time where chunks are small, as those of bits are."""


def chunk_counts(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return how many chunks the shard of a one-shard array holds along each axis."""
    return tuple(n // size for n, size in zip(array.shards or array.chunks, array.chunks, strict=True))


def note_checksums(array: zarr.Array[Any], folder: Path) -> None:
    """Add the checksums of all chunks to the attributes of an array just written whole into `folder`.

    The array has one shard that ends with its index, and chunks that end with their crc32c, as `layout` writes them.
    """
    count = int(np.prod(chunk_counts(array)))
    descriptor = os.open(folder.joinpath("c", *["0"] * array.ndim), os.O_RDONLY)
    try:
        start = os.fstat(descriptor).st_size - CHECKSUM_BYTES - _ENTRY_BYTES * count
        index = np.frombuffer(os.pread(descriptor, _ENTRY_BYTES * count, start), "<u8").reshape(count, 2)
        found = b"".join(
            os.pread(descriptor, CHECKSUM_BYTES, end - CHECKSUM_BYTES) for end in index.sum(axis=1).tolist()
        )
    finally:
        os.close(descriptor)
    array.update_attributes({ATTRIBUTE: base64.b64encode(found).decode()})


def noted_checksums(attributes: Mapping[str, Any]) -> NDArray[np.uint32] | None:
    """Return the checksums noted in an array's attributes, (chunks,); None where an earlier version wrote it."""
    noted = attributes.get(ATTRIBUTE)
    return None if noted is None else np.frombuffer(base64.b64decode(str(noted), validate=True), "<u4")


def wrong_in(path: Path, noted: NDArray[np.uint32]) -> str | None:
    """Return what is wrong with a shard, all of which is read; None where every byte is as it was written.

    noted: (chunks,). A chunk is right when it is whole by its own CRC32C and that is the one noted; the chunks and the
    index behind them must be all there is. Ten times as fast as a SHA-256, and as sure for damage, if not for malice.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        length = _ENTRY_BYTES * noted.size + CHECKSUM_BYTES
        body = os.fstat(descriptor).st_size - length
        raw = os.pread(descriptor, length, max(body, 0))
        if len(raw) != length or body < 0 or google_crc32c.value(raw) != INTACT:
            return "an index that fails its checksum"
        index = np.frombuffer(raw, "<u8", count=2 * noted.size).reshape(-1, 2)
        order = np.argsort(index[:, 0])
        offsets, lengths = index[order].T
        if not np.array_equal(offsets, np.cumsum(lengths) - lengths) or int(lengths.sum()) != body:
            return "chunks that do not lie side by side"
        begins, ends, checksums = offsets.tolist(), np.cumsum(lengths).tolist(), noted[order].tolist()
        first = 0
        while first < len(begins):
            start = begins[first]
            last = max(first + 1, bisect_right(ends, start + _READ_BYTES))
            block = os.pread(descriptor, ends[last - 1] - start, start)
            for begin, end, checksum in zip(begins[first:last], ends[first:last], checksums[first:last], strict=True):
                chunk = block[begin - start : end - start]
                if len(chunk) != end - begin or google_crc32c.value(chunk) != INTACT:
                    return f"a chunk at byte {begin} that fails its checksum"
                if int.from_bytes(chunk[-CHECKSUM_BYTES:], "little") != checksum:
                    return f"a chunk at byte {begin} of other content"
            first = last
    finally:
        os.close(descriptor)
    return None
