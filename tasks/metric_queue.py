"""Metrics on their way to MLflow: a thread delivers them, and while MLflow does not answer nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric

from tasks.notices import tell
from tasks.patience import first_line
from tasks.settings import Settings
from tasks.tracking import mlflow_client

BATCH = 1000
"""The most metrics that MLflow takes in one request."""
RETRY_S = 2.0


class MetricRow(NamedTuple):
    """One value of one metric: its name, the time in ms since 1970, and the step of the training."""

    name: str
    value: float
    timestamp_ms: int
    step: int


class MetricQueue:
    """Metrics of one run. A value that MLflow has taken once counts once, however often it was sent.

    The thread runs while the block does; what it could not deliver within `settings.mlflow_flush_s` of the block's end
    stays in `undelivered`.
    """

    def __init__(self, run_id: str, settings: Settings) -> None:
        self.undelivered: tuple[MetricRow, ...] = ()
        self._run_id, self._flush_s = run_id, settings.mlflow_flush_s
        self._client = mlflow_client(settings)
        self._waiting: deque[MetricRow] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._deliver, name="mlflow-metrics", daemon=True)

    def __enter__(self) -> MetricQueue:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(self._flush_s)
        with self._changed:
            self.undelivered = tuple(self._waiting)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Hand over the values of a step; returns at once."""
        now = int(time.time() * 1000)
        with self._changed:
            self._waiting.extend(MetricRow(name, float(value), now, step) for name, value in values.items())
            self._changed.notify()

    def _deliver(self) -> None:
        failing = False
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
                closing = self._closing
            if not batch:
                return
            try:
                send_metrics(self._client, self._run_id, batch)
            except Exception as error:  # of whatever kind: a training must not end because of its curves
                if not failing:
                    tell(f"MLflow does not take the metrics of run {self._run_id}, they wait: {first_line(error)}")
                failing = True
                if closing:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, RETRY_S)
                continue
            failing = False
            with self._changed:
                for _ in batch:
                    self._waiting.popleft()


def send_metrics(client: MlflowClient, run_id: str, rows: Sequence[MetricRow]) -> None:
    """Log the rows in the run, in as many requests as it takes."""
    for start in range(0, len(rows), BATCH):
        client.log_batch(run_id, metrics=[Metric(*row) for row in rows[start : start + BATCH]])
