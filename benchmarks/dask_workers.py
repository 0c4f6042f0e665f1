"""`dask`: 60 miniatures ingested by one and by two Dask workers, whose processes are up already."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from benchmarks.side_by_side import record
from tasks.case_cluster import case_cluster
from tasks.ingest import count_outcomes, ingest_batch, list_source
from tasks.miniatures import write_miniature_set
from tasks.settings import Settings

CARD, CASES, REPEATS = "word", 60, 3
SPACING_MM = (3.0, 3.0, 3.0)


def main() -> None:
    """Compare wall times, and CPU seconds a worker, which tell the speed-up on cores that nobody else uses."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        raw = write_miniature_set(CARD, Path(name) / "raw", cases=CASES, seed=5)
        runs = {workers: stack.enter_context(_ingester(workers, raw, Path(name))) for workers in (1, 2)}
        for run in runs.values():
            run()
        taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(REPEATS):
            for workers, run in runs.items():
                taken[workers].append(run())
        wall, cpu = (
            {workers: statistics.median(column) for workers, column in _columns(taken, place)} for place in (0, 1)
        )
        record("dask", wall[2], wall[1], "s")
        record("dask CPU", cpu[2] / 2, cpu[1], "s")


def _columns(taken: dict[int, list[tuple[float, float]]], place: int) -> Iterator[tuple[int, list[float]]]:
    for workers, runs in taken.items():
        yield workers, [run[place] for run in runs]


@contextmanager
def _ingester(workers: int, raw: Path, folder: Path) -> Iterator[Callable[[], tuple[float, float]]]:
    """Give what ingests all cases into a new lake and returns wall and CPU seconds of the workers."""
    numbers = count()
    own = Context()  # so that the two clusters are not one
    before = _children()

    def settings() -> Settings:
        place = folder / f"{workers}-{next(numbers)}"
        return Settings(workspace=place, spacing_mm=SPACING_MM, dask_address="local", workers=workers)

    cluster = case_cluster(settings())
    opened = own.run(cluster.__enter__)
    if opened is None:
        raise ValueError("dask: no cluster was opened")
    own.run(opened.dispatcher)
    processes = _children() - before

    def run() -> tuple[float, float]:
        where = settings()
        requests = list_source(CARD, raw, where).requests[:CASES]
        started, busy = time.perf_counter(), _cpu(processes)
        outcomes = own.run(ingest_batch, requests, where)
        taken = time.perf_counter() - started, _cpu(processes) - busy
        if count_outcomes(outcomes)["ingested"] != CASES:
            raise ValueError(f"dask: {count_outcomes(outcomes)}, expected {CASES} ingested")
        return taken

    try:
        yield run
    finally:
        own.run(cluster.__exit__, None, None, None)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _cpu(processes: set[psutil.Process]) -> float:
    def seconds(times: Any) -> float:
        return float(times.user + times.system)

    return sum(seconds(process.cpu_times()) for process in processes)
