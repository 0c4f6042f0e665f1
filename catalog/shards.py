"""Whole shards only: two writers of one shard lose each other's chunks without an error, so nobody writes a part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray


def write_region(target: zarr.Array[Any], start: Sequence[int], block: NDArray[Any]) -> None:
    """Write `block` at `start` of an array; ValueError, with both shapes, unless it covers whole shards.

    A block covers a shard when it reaches from one border of the shard grid to another, or to the array's end. The
    only place of the lake's code that puts voxels into a Zarr array.
    """
    shard = target.shards or target.chunks
    ends = [begin + length for begin, length in zip(start, block.shape, strict=True)]
    for begin, end, step, limit in zip(start, ends, shard, target.shape, strict=True):
        if begin < 0 or end > limit or begin % step or (end % step and end != limit):
            raise ValueError(
                f"{target.name or 'array'}: block of shape {block.shape} at {tuple(start)}, expected whole shards of "
                f"{tuple(shard)} of an array of {target.shape}; gather a whole shard and write it once"
            )
    target[tuple(slice(begin, end) for begin, end in zip(start, ends, strict=True))] = block


def in_memory(array: Any, where: str) -> NDArray[Any]:
    """Return `array` in memory; ValueError for a Dask array whose chunks would divide a shard.

    A level of the lake is one shard, so a Dask array fits when it is one chunk: then one task makes all of it.
    """
    chunks = getattr(array, "chunks", None)
    if chunks is None or not hasattr(array, "compute"):
        return np.asarray(array)
    if any(len(along) > 1 for along in chunks):
        found = tuple(max(along) for along in chunks)
        raise ValueError(
            f"{where}: Dask array in chunks of {found}, expected one chunk of the shard's shape {array.shape}, for two "
            "writers of one shard corrupt it; call `.rechunk(-1)` first"
        )
    return np.asarray(array.compute())
