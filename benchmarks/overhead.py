"""`overhead`: 10,000 sleeping cases on Dask workers, each committing real rows: what a case costs beside its work."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import record
from tasks.case_cluster import case_cluster
from tasks.ingest import ingest_batch, list_source
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.miniatures import write_miniature_set
from tasks.settings import Settings
from tasks.workspace import open_workspace, row_dicts

CASES, WORKERS = 10_000, 2
SLEEP_S = 0.05
"""Instead of the 6 s of a case, so that the simulation ends: the workers commit 100 times as often as real ones."""

CASE_S, SHARE = 6.0, 0.05


def main() -> None:
    """Compare the overhead of a case with 5 % of 6 s; print how the cost of a commit grows with their number."""
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(workspace=Path(name), spacing_mm=(6, 6, 6), dask_address="local", workers=WORKERS)
        case, labels = _rows(Path(name))
        run = partial(sleep_and_commit, settings=settings.for_workers(), case=case, labels=labels)
        with case_cluster(settings):
            map_cases(run, range(CASES, CASES + WORKERS), settings)  # processes are up, modules imported
            started = time.perf_counter()
            results = map_cases(run, range(CASES), settings)
            taken = time.perf_counter() - started
        commits = [one for one in results if not isinstance(one, Lost)]
        there = len(open_workspace(settings).tables.current_keys())
        if len(commits) != CASES or there != CASES + WORKERS:
            raise ValueError(f"overhead: {len(commits)} cases finished and {there} are visible, expected {CASES}")
        tenth = CASES // 10
        for title, part in (("first", commits[:tenth]), ("last", commits[-tenth:])):
            wall, cpu = (statistics.median(column) for column in zip(*part, strict=True))
            print(f"commit of a case, median of the {title} tenth: {wall:.4f} s, of which {cpu:.4f} s of CPU")
        record("overhead", taken * WORKERS / CASES - SLEEP_S, CASE_S * SHARE, "s")
        record("overhead cpu", statistics.mean(cpu for _, cpu in commits), CASE_S * SHARE, "s")


def sleep_and_commit(
    number: int, settings: Settings, case: dict[str, Any], labels: Sequence[dict[str, Any]]
) -> tuple[float, float]:
    """Sleep as a case would work, look whether it is there, commit its rows; return wall and CPU seconds of the two.

    CPU seconds tell the cost where other processes use the cores too.
    """
    time.sleep(SLEEP_S)
    name = {"case_id": f"{case['dataset']}/{number:05d}", "ingest_key": f"{number:064x}"}
    started, busy = time.perf_counter(), time.process_time()
    tables = open_workspace(settings).tables
    if not tables.has(name["case_id"], name["ingest_key"]):
        row = {**case, **name, "native_id": f"{number:05d}", "content_sha256": name["ingest_key"]}
        tables.commit_case(row, [{**label, **name} for label in labels])
    return time.perf_counter() - started, time.process_time() - busy


def _rows(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the rows of one real ingest: 16 classes, sampled positions and manifests as they are."""
    alone = Settings(workspace=folder / "one", spacing_mm=(6, 6, 6))
    raw = write_miniature_set("word", folder / "raw", cases=1, seed=1)
    ingest_batch(list_source("word", raw, alone).requests[:1], alone)
    tables = open_workspace(alone).tables
    added = {"revision", "committed_at", "schema_version"}
    (case,) = row_dicts(tables.cases())
    labels = row_dicts(tables.labels())
    joined = {"dataset", "role", "fold", "path"}
    return (
        {name: value for name, value in case.items() if name not in added},
        [{name: value for name, value in row.items() if name not in added | joined} for row in labels],
    )
