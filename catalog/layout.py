"""How arrays lie in the lake: chunk, shard, codec, fill values, codec pipeline.

Why, and the figures behind it: docs/design/0002-lake-layout.md.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from catalog import seals, shards
from catalog.location import Location
from catalog.shard_order import put_in_c_order

CHUNK = 32
"""Voxels along each side of a chunk."""

LEVELS = 3
"""Resolution levels of an image: "0" as harmonised, each next one half as fine along every axis."""

AIR_HU = -1024
IMAGE_FILL = -32768
"""Outside the domain of CT, so that a missing chunk can never pass for a measured value."""

BITS_FILL = 2**32 - 1
"""All bits set: outside the domain, since no voxel is in all of 32 classes at once (left AND right kidney ...)."""

Packing = tuple[Literal["lz4", "lz4hc", "zstd"], int, Literal["noshuffle", "shuffle", "bitshuffle"]]
"""Blosc's compressor, its level, and how bytes are shuffled before it."""

IMAGE_CODEC: Packing = ("lz4", 9, "bitshuffle")
"""The fastest to read within 1.3 times the size of zstd at level 8."""

BITS_CODEC: Packing = ("lz4hc", 5, "shuffle")
"""Two thirds of the size of lz4 and as fast to read; slow to write only where voxels are noisy, as bits are not."""

ZARR_PYTHON = "zarr.core.codec_pipeline.BatchedCodecPipeline"
ZARRS = "zarrs.ZarrsCodecPipeline"

WRITERS = 2
"""Arrays of one case written at a time."""

_configuring = threading.RLock()
_forked = threading.Event()
os.register_at_fork(after_in_child=_forked.set)


@cache
def _zarrs_imports() -> bool:
    try:
        importlib.import_module("zarrs")
    except ImportError:
        return False
    return True


def codec_pipeline() -> str:
    """Return the import path of the codec pipeline in use: zarrs (Rust) when it can be imported, else zarr-python's.

    A forked child takes zarr-python's: the Rust thread pool does not survive a fork and would wait forever.
    """
    return ZARRS if not _forked.is_set() and _zarrs_imports() else ZARR_PYTHON


@contextmanager
def _configured() -> Iterator[None]:
    # zarr's settings belong to the whole process; the lock keeps two threads from restoring each other's values.
    with _configuring, zarr.config.set({"codec_pipeline.path": codec_pipeline()}):
        yield


@contextmanager
def written_together() -> Iterator[ThreadPoolExecutor]:
    """Give threads in which `write_array` may run: arrays side by side, each laid out by one thread.

    One thread an array keeps its bytes the same on every machine; several arrays at once keep the cores busy.
    """
    with _configured():
        # zarr makes its own threads at its first call, as many as the setting says then, and keeps that number
        with zarr.config.set({"threading.max_workers": WRITERS}):
            sync(asyncio.sleep(0))
        with zarr.config.set({"threading.max_workers": 1}), ThreadPoolExecutor(WRITERS) as threads:
            yield threads


def open_array(place: Path | Location, path: str = "") -> zarr.Array[Any]:
    """Return the Zarr array at `path` below `place`, opened for reading only, with the pipeline of `codec_pipeline`."""
    location = Location.of(place)
    with _configured(), warnings.catch_warnings():
        # zarrs says that it keeps connections of its own beside obstore's.
        warnings.filterwarnings("ignore", "Successfully reconstructed a store", RuntimeWarning)
        store = location.folder if location.is_local else ObjectStore(location.store, read_only=True)
        array = zarr.open_array(store=store, path=path, mode="r", zarr_format=3)
    # zarrs 0.2.3 writes into a local array that was opened for reading.
    object.__setattr__(array.async_array.codec_pipeline, "write", _refuse_write)
    return array


async def _refuse_write(*_: object, **__: object) -> None:
    raise ValueError("an opened array of the lake is read-only; write whole cases or annotations through `Lake`")


def write_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Write a Zarr v3 group with `attributes` (JSON-able) into `folder`."""
    zarr.create_group(store=folder, zarr_format=3, attributes=attributes)


def write_array(folder: Path, array: NDArray[Any], fill: int, axes: tuple[str, ...]) -> None:
    """Write `array` as one Zarr v3 array of exactly one shard.

    array: (Z, Y, X) or (W, Z, Y, X); a leading axis is kept whole in every chunk. axes: its dimension names.
    fill: stands for "never written". Called inside `written_together`, so that the bytes depend on nothing but the
    arguments; ValueError elsewhere.
    """
    if zarr.config.get("threading.max_workers") != 1:
        raise ValueError(f"{folder.name}: write_array outside of written_together(), the bytes could differ each time")
    lead = array.shape[:-3]
    chunks = (*lead, CHUNK, CHUNK, CHUNK)
    shard = (*lead, *(-(-n // CHUNK) * CHUNK for n in array.shape[-3:]))
    compressor, level, shuffle = IMAGE_CODEC if array.dtype == np.int16 else BITS_CODEC
    blosc = BloscCodec(cname=compressor, clevel=level, shuffle=shuffle, typesize=array.dtype.itemsize)
    target = zarr.create_array(
        store=folder,
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunks,
        shards=shard,
        filters=None,
        compressors=[blosc, Crc32cCodec()],
        fill_value=fill,
        dimension_names=axes,
        config={"write_empty_chunks": True},
        zarr_format=3,
    )
    shards.write_region(target, (0,) * array.ndim, np.ascontiguousarray(array))
    if codec_pipeline() != ZARRS:
        count = int(np.prod(seals.chunk_counts(target)))
        put_in_c_order(folder.joinpath("c", *["0"] * array.ndim), count)
    seals.note_checksums(target, folder)


def halve_image(array: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return (Z, Y, X) int16 HU at half the resolution: means of 2 x 2 x 2 voxels, halves rounded up.

    An odd last plane is averaged with itself. The shape is ceil(n / 2) along each axis.
    """
    total: NDArray[Any] = array  # int16 at first; the first sum widens it to int32
    for axis in range(3):
        total = _join_neighbours(total, axis, np.add, np.int32)
    total += 4
    total >>= 3
    return total.astype(np.int16)


def halve_bits(array: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return (W, Z, Y, X) class bits at half the resolution: a class is there if any of the 2 x 2 x 2 voxels has it."""
    for axis in (1, 2, 3):
        array = _join_neighbours(array, axis, np.bitwise_or, np.uint32)
    return array


def _join_neighbours(array: NDArray[Any], axis: int, join: np.ufunc, kind: type[Any]) -> NDArray[Any]:
    """Return `join` of each two neighbours along one axis, (n + 1) // 2 of them; an odd last one joins itself."""

    def along(chosen: slice) -> tuple[slice, ...]:
        return (*[slice(None)] * axis, chosen)

    count = array.shape[axis]
    joined = np.empty((*array.shape[:axis], (count + 1) // 2, *array.shape[axis + 1 :]), dtype=kind)
    join(
        array[along(slice(0, count // 2 * 2, 2))],
        array[along(slice(1, None, 2))],
        out=joined[along(slice(count // 2))],
        dtype=kind,
    )
    if count % 2:
        last = array[along(slice(count - 1, None))]
        join(last, last, out=joined[along(slice(count // 2, None))], dtype=kind)
    return joined
