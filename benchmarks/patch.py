"""`patch` and `patch size`: a random 96^3 patch from the lake, warm, against blosc2 files as nnU-Net writes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import blosc2
import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.side_by_side import record, run_in_turn
from catalog.lake import Lake
from imaging.volume import Volume

SHAPE = (300, 300, 300)
PATCH = 96
READS = 20


def _scan() -> Volume:
    """Return a body-shaped volume of smoothed noise in HU, with scanner noise, air around it: it packs like a CT."""
    rng = np.random.default_rng(0)
    tissue = gaussian_filter(rng.normal(0, 1, SHAPE).astype(np.float32), 6) * 2500 + 40
    x, y, _ = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((x - 150) / 130) ** 2 + ((y - 150) / 95) ** 2 < 1
    noise = rng.normal(0, 12, SHAPE)
    hu = np.where(body, tissue + noise, -1000 + 0.4 * noise)
    return Volume(hu.clip(-1024, 3071).astype(np.int16), np.diag([1.5, 1.5, 1.5, 1.0]))


def main() -> None:
    scan = _scan()
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        stored = lake.write_case("bench", "scan", "0" * 64, scan, {})
        row = {"case_id": "bench/scan", "path": stored.path, "manifest": stored.manifest.to_json()}
        file = Path(folder) / "scan.b2nd"
        # nnU-Net stores float32 with blocks that hold a patch's rows in cache; int16 is the fairer peer here.
        blosc2.asarray(
            np.ascontiguousarray(scan.array),
            urlpath=str(file),
            chunks=(PATCH, PATCH, PATCH),
            blocks=(32, 32, 32),
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 8, "nthreads": 2},
        )
        opened = blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, mmap_mode="r")
        starts = np.random.default_rng(1).integers(0, np.array(SHAPE) - PATCH, (READS, 3))

        def ours() -> None:
            for x, y, z in starts.tolist():
                lake.read_patch(row, (x, y, z), (PATCH, PATCH, PATCH))

        def peer() -> None:
            for x, y, z in starts.tolist():
                opened[x : x + PATCH, y : y + PATCH, z : z + PATCH]

        run_in_turn("patch", ours, peer, unit=f"s per {READS}")
        size = sum(
            path.stat().st_size for path in (Path(folder) / "lake" / stored.path / "0").rglob("*") if path.is_file()
        )
        record("patch size", size / 2**20, file.stat().st_size / 2**20, "MiB")
