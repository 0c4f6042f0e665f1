"""Random 96^3 patches from the lake, warm, against blosc2 files as nnU-Net writes them, and whole h5 files.

Peers decode with one thread, as ours do. nnU-Net's own settings: chunks, blocks, codec and filter of version 2.8.1.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np
from numpy.typing import NDArray

from benchmarks.side_by_side import record, run_in_turn
from benchmarks.volumes import made_bits, made_scan, real_scan
from catalog.lake import Lake
from imaging.bits import count_voxels
from imaging.volume import Volume

PATCH = 96
READS = 20
ROUNDS = 9
Start = tuple[int, int, int]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _compare(Path(folder), "", made_scan(), made_bits())
        real = real_scan()
        if real is not None:
            _compare(Path(folder), " real", real, None)


def _compare(folder: Path, name: str, scan: Volume, bits: NDArray[np.uint32] | None) -> None:
    lake, root = Lake(folder / "lake"), folder / "lake"
    labels = {} if bits is None else {"human": bits}
    stored = lake.write_case("bench", f"scan{name.strip()}", "0" * 64, scan, {}, labels)
    row = {"case_id": "bench/scan", "path": stored.path, "manifest": stored.manifest.to_json()}
    starts = starts_in(scan.shape)
    # nnU-Net keeps the axes Z, Y, X, as the lake does.
    image = as_issue(folder / "image.b2nd", scan.array.T)
    own = _as_nnunet(folder / "own.b2nd", scan.array.T.astype(np.float32))
    np.testing.assert_array_equal(lake.read_patch(row, starts[0], (PATCH,) * 3).array, box(image, starts[0]).T)

    def read_image(start: Start) -> Any:
        return lake.read_patch(row, start, (PATCH,) * 3)

    def read_bits(start: Start) -> Any:
        return lake.read_bits_patch(row, "human", start, (PATCH,) * 3)

    def in_turn(what: str, ours: tuple[Callable[[Start], Any], ...], *peers: Any) -> None:
        for suffix, clock in (("", time.perf_counter), (" cpu", time.thread_time)):
            our, their = _one_a_call(starts, ours), _one_a_call(starts, [partial(box, peer) for peer in peers])
            run_in_turn(what + suffix, our, their, repeats=ROUNDS * READS, clock=clock)

    in_turn(f"patch{name}", (read_image,), image)
    in_turn(f"patch{name} nnunet", (read_image,), own)
    size, peer_size = length(root / stored.path / "0"), length(folder / "image.b2nd")
    if bits is not None:
        label = one_class_a_voxel(bits)
        seg = as_issue(folder / "seg.b2nd", label.T)
        in_turn("patch label", (read_bits,), seg)
        in_turn("patch both", (read_image, read_bits), image, seg)
        size, peer_size = (
            size + length(root / stored.path / "labels/human/0"),
            peer_size + length(folder / "seg.b2nd"),
        )
        _compare_h5(folder / "case.h5", scan, label, starts, lambda start: (read_image(start), read_bits(start)))
    record(f"patch{name} size", size / 2**20, peer_size / 2**20, "MiB")


def _compare_h5(
    file: Path, scan: Volume, label: NDArray[np.int8], starts: list[Start], read: Callable[..., Any]
) -> None:
    """The reference reads image and label of a scan whole for every sample, then crops."""
    with h5py.File(file, "w") as stream:
        stream.create_dataset("image", data=scan.array.T.astype(np.float32), compression="gzip")
        stream.create_dataset("label", data=label.T, compression="gzip")
    ours_at, peer_at = cycle(starts), cycle(starts)

    def peer() -> None:
        with h5py.File(file) as stream:
            start = next(peer_at)
            for key in ("image", "label"):
                np.ascontiguousarray(box(stream[key][...], start))

    run_in_turn("patch h5", lambda: read(next(ours_at)), peer)


def as_issue(file: Path, array: NDArray[Any]) -> Any:
    """Return an opened int16 or int8 file with blocks of 32^3 and zstd: half the bytes of nnU-Net's float32."""
    cparams = {"codec": blosc2.Codec.ZSTD, "clevel": 8, "nthreads": 2}
    return _opened(file, array, (PATCH,) * 3, cparams)


def _as_nnunet(file: Path, array: NDArray[np.float32]) -> Any:
    """Return an opened float32 file: chunks grown by blocks up to 1.5 patches and 6 MiB, the smaller of two filters."""
    cparams = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 2, "filters": [blosc2.Filter.SHUFFLE]}
    return _opened(file, array, (128, 96, 96), cparams)


def _opened(file: Path, array: NDArray[Any], chunks: Start, cparams: dict[str, Any]) -> Any:
    blosc2.asarray(
        np.ascontiguousarray(array), urlpath=str(file), mode="w", chunks=chunks, blocks=(32, 32, 32), cparams=cparams
    )
    return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, mmap_mode="r")


def one_class_a_voxel(bits: NDArray[np.uint32]) -> NDArray[np.int8]:
    """Return the label that nnU-Net can hold: the last class where several overlap."""
    label = np.zeros(bits.shape[1:], dtype=np.int8)
    for channel in np.flatnonzero(count_voxels(bits, 32)):
        label[(bits[0] >> np.uint32(channel) & np.uint32(1)) > 0] = channel + 1
    return label


def starts_in(shape: Start) -> list[Start]:
    found = np.random.default_rng(1).integers(0, np.array(shape) - PATCH, (READS, 3)).tolist()
    return [(x, y, z) for x, y, z in found]


def _one_a_call(starts: list[Start], reads: Iterable[Callable[[Start], Any]]) -> Callable[[], None]:
    """Return a function that reads the next patch at each call."""
    at = cycle(starts)

    def read_next() -> None:
        start = next(at)
        for read in reads:
            read(start)

    return read_next


def box(array: Any, start: Start) -> NDArray[Any]:
    """Return the patch at `start` (X, Y, Z) of an array (Z, Y, X)."""
    x, y, z = start
    found: NDArray[Any] = array[z : z + PATCH, y : y + PATCH, x : x + PATCH]
    return found


def length(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
