"""Run the cases of a flow in batches: a Prefect task each, one Dask cluster for all, progress for everybody to see."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.case_cluster import case_cluster
from tasks.progress import CaseProgress, listening
from tasks.settings import Settings

BATCHES_AT_ONCE = 8
"""Batches whose cases wait for workers together, so that the last cases of one do not leave workers idle."""

ARTIFACT_EVERY_S = 5.0

batch_runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=BATCHES_AT_ONCE)
"""For the flows that call `run_batches`: the threads only wait for the cluster."""

Outcome = TypeVar("Outcome")


def run_batches(
    task: Task[..., list[Outcome]],
    requests: Sequence[Any],
    settings: Settings,
    progress: CaseProgress,
    key: str,
    **more: Any,
) -> list[Outcome]:
    """Return the outcomes of all `requests`, in order; `task` is given a batch, the settings, `progress` and `more`.

    Called inside a flow. A plain loop takes one batch after another; with Dask several wait together for the workers.
    key: of the progress artifact.
    """
    size = settings.batch_cases
    batches = [list(requests[start : start + size]) for start in range(0, len(requests), size)]
    with case_cluster(settings) as cluster, progress_artifact(progress, key):
        if cluster is None:
            return [outcome for batch in batches for outcome in task(batch, settings, progress, **more)]
        futures = [task.submit(batch, settings, progress, **more) for batch in batches]
        return [outcome for future in futures for outcome in future.result()]


@contextmanager
def progress_artifact(progress: CaseProgress, key: str) -> Iterator[None]:
    """Keep a Prefect progress artifact up to date while the block runs: percent done, and the counts in words."""
    artifact = create_progress_artifact(0.0, key=key, description=progress.what)
    told = time.monotonic()
    last = (0, 0, "")

    def tell() -> None:
        done, total, note = last
        description = f"{progress.what}: {done} of {total} cases. {note}".strip()
        try:
            update_progress_artifact(artifact, 100.0 * done / total if total else 100.0, description=description)  # type: ignore[arg-type]
        except (httpx.HTTPError, PrefectException) as problem:
            get_run_logger().warning("progress could not be shown: %s", problem)  # and nothing else is lost by it

    def hear(what: str, done: int, total: int, note: str) -> None:
        nonlocal told, last
        if what != progress.what:
            return
        last = (done, total, note)
        if time.monotonic() - told > ARTIFACT_EVERY_S:
            told = time.monotonic()
            tell()

    with listening(hear):
        progress.report()
        try:
            yield
        finally:
            tell()
