"""The order of chunks in a shard: C order, whichever codec pipeline wrote it, so that equal arrays are equal bytes.

zarrs lays them out so; zarr-python follows a Morton curve. Without this, a case that a process without zarrs (a forked
one for instance) wrote again would differ from its manifest.
"""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np

_CHECKSUM_BYTES = 4


def put_in_c_order(shard: Path, count: int) -> None:
    """Rewrite the file of a shard whose `count` chunks do not lie in C order; one that does is left alone.

    The file ends with the index of all chunks (offset and length, uint64), none of them missing, and its crc32c.
    """
    data = shard.read_bytes()
    start = len(data) - 16 * count - _CHECKSUM_BYTES
    index = np.frombuffer(data, "<u8", 2 * count, start).reshape(count, 2)
    lengths = index[:, 1]
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype("<u8")
    if np.array_equal(offsets, index[:, 0]):
        return
    sorted_index = np.stack([offsets, lengths], axis=1).tobytes()
    chunks = [data[offset : offset + length] for offset, length in index.tolist()]
    checksum = google_crc32c.value(sorted_index).to_bytes(_CHECKSUM_BYTES, "little")
    shard.write_bytes(b"".join([*chunks, sorted_index, checksum]))
