"""`verify`: `lake verify --read-data` against reading the same files from end to end and doing nothing with them.

Once with the files in the system's cache, once after they were dropped from it, which is how a lake is verified.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.side_by_side import run_in_turn
from benchmarks.volumes import made_bits, made_scan
from catalog import schema
from catalog.lake import Lake
from catalog.tables import Tables
from catalog.verify import verify
from datasets_registry.durable import sync

CASES = 20
BLOCK = 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake, tables = Lake(folder), Tables(folder)
        _fill(lake, tables)
        files = [path for path in (Path(folder) / "volumes").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e9
        print(f"{len(files)} files, {size:.2f} GB")

        def ours() -> None:
            assert verify(tables, lake, read_data=True) == []

        def peer() -> None:
            buffer = bytearray(BLOCK)
            for path in files:
                with path.open("rb", buffering=0) as stream:
                    while stream.readinto(buffer):
                        pass

        def from_disk(work: Callable[[], None]) -> None:
            for path in files:
                _drop(path)
            work()

        cached = run_in_turn("verify cached", ours, peer, repeats=11)
        cold = run_in_turn("verify", lambda: from_disk(ours), lambda: from_disk(peer), repeats=11)
        for name, result in (("verify cached", cached), ("verify", cold)):
            print(f"{name}: ours {size / result.ours:.2f} GB/s, peer {size / result.peer:.2f} GB/s")


def _fill(lake: Lake, tables: Tables) -> None:
    """Write one case with its labels, copy its files for the others, and commit rows that say where they are."""
    scan = made_scan()
    stored = lake.write_case("bench", "scan_0", "0" * 64, scan, {}, {"human": made_bits()})
    for number in range(CASES):
        name = f"scan_{number}"
        path = stored.path.replace("scan_0", name)
        if number:
            shutil.copytree(lake.root / stored.path, lake.root / path)
        about = {
            **{name: _nothing(column.type) for name, column in schema.CASES.items() if not column.optional},
            **dict(zip(("shape_x", "shape_y", "shape_z"), scan.shape, strict=True)),
            "case_id": f"bench/{name}",
            "dataset": "bench",
            "native_id": name,
            "role": "train",
            "path": path,
            "manifest": stored.manifest.to_json(),
        }
        tables.commit_case({key: value for key, value in about.items() if key not in schema.FILLED_IN})


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    return "" if pa.types.is_string(kind) else 0


def _drop(path: Path) -> None:
    """Take a file out of the system's cache, so that the next read comes from the disk."""
    sync(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
