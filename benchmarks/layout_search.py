"""Chunk size, codec and shuffle by measurement: `python -m benchmarks.layout_search` prints a table, see design note 2.

Each row writes the same volume as one shard, reads random 96^3 boxes, warm, through the lake's reader and through zarr,
and says how time and size compare with a blosc2 file (int16, blocks of 32^3, zstd 8) read in turn with it. Times are of
the CPU, so that other work beside does not show.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from benchmarks.patch import PATCH, as_issue, box, length, one_class_a_voxel, starts_in
from benchmarks.volumes import made_bits, made_scan, real_scan
from catalog import layout
from catalog.layout import Packing
from catalog.manifest import FileEntry, file_sha256
from catalog.shard import Shard

ROUNDS = 5
PLAIN_ZSTD = 3
Chunk = tuple[int, int, int]
CODECS: tuple[Packing | None, ...] = (
    ("zstd", 1, "shuffle"),
    ("zstd", 3, "shuffle"),
    ("zstd", 5, "shuffle"),
    ("zstd", 1, "bitshuffle"),
    ("zstd", 1, "noshuffle"),
    None,  # zstd without blosc
    ("lz4", 9, "shuffle"),
    ("lz4", 5, "bitshuffle"),
    ("lz4", 9, "bitshuffle"),
    ("lz4hc", 5, "shuffle"),
    ("lz4hc", 1, "bitshuffle"),
    ("lz4hc", 5, "bitshuffle"),
)
CHUNKS = ((24, 24, 24), (40, 40, 40), (48, 48, 48), (64, 64, 64), (16, 32, 32), (32, 32, 64))


def main() -> None:
    print("| volume | chunk | codec | write s | MB | size / blosc2 | read ms | through zarr ms | blosc2 ms / read ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    label = made_bits()
    _rows("made CT", made_scan().array.T, made_scan().array.T, layout.IMAGE_CODEC)
    real = real_scan()
    if real is not None:
        _rows("real CT", real.array.T, real.array.T, layout.IMAGE_CODEC)
    _rows("class bits", label.transpose(0, 3, 2, 1), one_class_a_voxel(label).T, layout.BITS_CODEC)


def _rows(name: str, array: NDArray[Any], peers: NDArray[Any], chosen: Packing) -> None:
    """Print one row a codec at the lake's chunk, then one a chunk with the lake's codec."""
    with tempfile.TemporaryDirectory() as folder:
        peer = as_issue(Path(folder) / "peer.b2nd", peers)
        size = length(Path(folder) / "peer.b2nd")
        cube = (layout.CHUNK,) * 3
        for chunk, codec in [*((cube, codec) for codec in CODECS), *((chunk, chosen) for chunk in CHUNKS)]:
            _row(Path(folder), name, array, chunk, codec, peer, size)


def _row(
    folder: Path,
    name: str,
    array: NDArray[Any],
    chunk: Chunk,
    codec: Packing | None,
    peer: Any,
    peer_size: int,
) -> None:
    place = folder / f"{'x'.join(map(str, chunk))} {_named(codec)}"
    began = time.process_time()
    with layout.written_together():
        _write(place, array, chunk, codec)
    took = time.process_time() - began
    opened = layout.open_array(place)
    file = place / opened.metadata.encode_chunk_key((0,) * opened.ndim)
    shard = Shard.of(place, name, file.name, opened, FileEntry(file.stat().st_size, file_sha256(file)))

    def of(start: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        x, y, z = start
        return slice(z, z + PATCH), slice(y, y + PATCH), slice(x, x + PATCH)

    reads: list[Callable[[tuple[int, int, int]], Any]] = [
        lambda start: opened[(..., *of(start))],
        lambda start: box(peer, start),
    ]
    if shard is not None:
        reads.append(lambda start: shard.read(of(start)))
    starts = starts_in(array.shape[:-4:-1])
    rounds = np.array([_round(reads, starts) for _ in range(ROUNDS)])
    through, theirs, *ours = (np.median(rounds, axis=0) * 1e3).tolist()
    direct = ours[0] if ours else through
    print(
        f"| {name} | {' x '.join(map(str, chunk))} | {_named(codec)} | {took:.2f} | "
        f"{length(file) / 2**20:.2f} | {length(file) / peer_size:.2f} | {f'{direct:.2f}' if ours else '-'} | "
        f"{through:.2f} | {theirs / direct:.2f} |",
        flush=True,
    )


def _named(codec: Packing | None) -> str:
    return f"plain zstd {PLAIN_ZSTD}" if codec is None else f"{codec[0]} {codec[1]}, {codec[2]}"


def _round(reads: list[Callable[..., Any]], starts: list[tuple[int, int, int]]) -> list[float]:
    """Return the seconds per patch of each way to read, one after the other."""
    taken = []
    for read in reads:
        began = time.process_time()
        for start in starts:
            read(start)
        taken.append((time.process_time() - began) / len(starts))
    return taken


def _write(place: Path, array: NDArray[Any], chunk: Chunk, codec: Packing | None) -> None:
    lead = array.shape[:-3]
    packed: BloscCodec | ZstdCodec = ZstdCodec(level=PLAIN_ZSTD)
    if codec is not None:
        compressor, level, shuffle = codec
        packed = BloscCodec(cname=compressor, clevel=level, shuffle=shuffle, typesize=array.dtype.itemsize)
    target = zarr.create_array(
        store=place,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(*lead, *chunk),
        shards=(*lead, *(-(-n // size) * size for n, size in zip(array.shape[-3:], chunk, strict=True))),
        compressors=[packed, Crc32cCodec()],
        fill_value=layout.IMAGE_FILL if array.dtype == np.int16 else layout.BITS_FILL,
        config={"write_empty_chunks": True},
        zarr_format=3,
    )
    target[...] = np.ascontiguousarray(array)


if __name__ == "__main__":
    main()
