"""The checksum of every chunk, noted in the array's metadata, which the manifest of its row seals.

A chunk's own crc32c says that it is whole, not that it is the right one: a chunk of another case or of an older version
passes. The manifest's SHA-256 would tell, but costs reading a shard to its end before its first patch. So the writer
notes all checksums in `zarr.json`, and whoever reads a chunk compares the one behind it with the one noted.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

ATTRIBUTE = "chunk_crc32c"
"""Attribute of an array: base64 of little-endian uint32, one a chunk in C order."""

CHECKSUM_BYTES = 4


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
        start = os.fstat(descriptor).st_size - CHECKSUM_BYTES - 16 * count
        index = np.frombuffer(os.pread(descriptor, 16 * count, start), "<u8").reshape(count, 2)
        found = b"".join(
            os.pread(descriptor, CHECKSUM_BYTES, end - CHECKSUM_BYTES) for end in index.sum(axis=1).tolist()
        )
    finally:
        os.close(descriptor)
    array.update_attributes({ATTRIBUTE: base64.b64encode(found).decode()})


def noted_checksums(array: zarr.Array[Any]) -> NDArray[np.uint32] | None:
    """Return the noted checksums, shaped like the grid of chunks; None where an earlier version wrote the array.

    ValueError where they are not one a chunk.
    """
    noted = array.attrs.get(ATTRIBUTE)
    if noted is None:
        return None
    return np.frombuffer(base64.b64decode(str(noted), validate=True), "<u4").reshape(chunk_counts(array))
