"""`loader`: training batches by two reader processes against one, read from a lake of made scans, warm.

One batch is one 96^3 patch, image and classes, as it is handed to the device. Two processes can be twice as fast as one
only where two cores are free: `loader cpu` is what the CPU time of a batch promises for two cores, shared out evenly
among two readers and the process that takes the batches over, against one reader, which has one core.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.side_by_side import record
from benchmarks.volumes import made_bits, made_scan
from catalog.lake import Lake
from datasets_registry.taxonomy import all_classes
from imaging.bits import get_channel
from models.loader import AHEAD, open_batches
from models.plan import Int3, TrainCase
from models.sampling import PatchSampler
from models.settings import ModelSettings, TrainSettings

CASES = 4
BATCHES = 200
ROUNDS = 3
SKIPPED = 8
"""Batches before the clock starts: the processes have started and opened their arrays."""


class LakeSource:
    """The scans of a lake without its tables, which take no part here."""

    def __init__(self, lake: Lake, rows: dict[str, dict[str, str]], cases: list[TrainCase]) -> None:
        self._lake, self._rows, self._cases = lake, rows, cases

    def cases(self) -> list[TrainCase]:
        """Return the scans."""
        return self._cases

    def read(
        self, case_id: str, start_xyz: Int3, size_xyz: Int3
    ) -> tuple[NDArray[np.int16], NDArray[np.uint32], tuple[slice, slice, slice]]:
        """Return image, class bits and the part inside the scan."""
        image = self._lake.read_patch(self._rows[case_id], start_xyz, size_xyz)
        bits = self._lake.read_bits_patch(self._rows[case_id], "human", start_xyz, size_xyz)
        return image.array, bits.array, image.valid


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sampler = PatchSampler(_source(Path(folder)), ModelSettings(), TrainSettings(batch=1))
        rounds = [[_run(sampler, readers) for readers in (2, 1)] for _ in range(ROUNDS)]
    runs = [[median(figures) for figures in zip(*(times[turn] for times in rounds), strict=True)] for turn in (0, 1)]
    for readers, (wall, reader, taker) in zip((2, 1), runs, strict=True):
        shared = f"{1e3 * reader:.2f} ms of CPU in the readers and {1e3 * taker:.2f} ms here"
        print(f"readers: {readers}; a batch takes {shared}, which keeps {(reader + taker) / wall:.2f} cores busy")
    record("loader", runs[0][0], runs[1][0], "s a batch")
    _, reader, taker = runs[1]
    record("loader cpu", max((reader + taker) / 2, taker), max(reader, taker), "s a batch")


def _run(sampler: PatchSampler, readers: int) -> tuple[float, float, float]:
    """Return the wall time a batch, and the CPU time a batch of all readers and of this process."""
    with open_batches(sampler, range(BATCHES + SKIPPED), readers, 0) as batches:
        for _ in range(SKIPPED):
            next(batches)
        workers = [worker for server in psutil.Process().children() for worker in server.children()]
        wall, own, theirs = time.perf_counter(), time.process_time(), _cpu(workers)
        taken = BATCHES - AHEAD * readers - 1  # while no reader has come to its end
        for _ in range(taken):
            next(batches)
        return (
            (time.perf_counter() - wall) / taken,
            (_cpu(workers) - theirs) / taken,
            (time.process_time() - own) / taken,
        )


def _cpu(workers: list[psutil.Process]) -> float:
    return float(sum(times.user + times.system for times in (worker.cpu_times() for worker in workers)))


def _source(folder: Path) -> LakeSource:
    lake, scan, bits = Lake(folder / "lake"), made_scan(), made_bits()
    foreground = {}
    for channel in (info.channel for info in all_classes()):
        voxels = np.argwhere(get_channel(bits, channel))
        if len(voxels):
            foreground[channel] = voxels[:: max(1, len(voxels) // 64)]
    rows, cases = {}, []
    for number in range(CASES):
        stored = lake.write_case("bench", str(number), f"{number:064d}", scan, {}, {"human": bits})
        case_id = f"bench/{number}"
        rows[case_id] = {"case_id": case_id, "path": stored.path, "manifest": stored.manifest.to_json()}
        cases.append(TrainCase(case_id, tuple(sorted(foreground)), scan.shape, foreground, "bench"))
    return LakeSource(lake, rows, cases)
