"""What every flow does at its start and end: know its own id, and leave a row in the `runs` table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from prefect.runtime import flow_run

from tasks.pending import RegistrationPending
from tasks.settings import Settings
from tasks.workspace import open_workspace


@dataclass
class RunRecord:
    """Filled in while a flow runs: counts by name, and the ids of what it made.

    table_versions: of the tables that the run reads; those at its start, unless a step knows better. evidence: SHA-256
    by name of files that others rely on, which this row vouches for.
    """

    kind: str
    flow_run_id: str | None
    counts: dict[str, int] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    model_version: str | None = None
    table_versions: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, str] | None = None


@contextmanager
def recorded_run(kind: str, settings: Settings, about: Mapping[str, Any]) -> Iterator[RunRecord]:
    """Yield a record, and append it to the `runs` table when the block ends, with outcome `done` or `failed`."""
    record = RunRecord(kind, str(flow_run.id) if flow_run.id else None)
    tables = open_workspace(settings).tables
    record.table_versions = tables.versions()
    started = datetime.now(UTC)
    outcome = "failed"
    try:
        yield record
        outcome = "done"
    except RegistrationPending as waiting:
        record.mlflow_run_id = waiting.run_id
        raise
    finally:
        tables.record_run(
            {
                "run_id": record.flow_run_id or uuid4().hex,
                "kind": kind,
                "flow_run_id": record.flow_run_id,
                "mlflow_run_id": record.mlflow_run_id,
                "model_version": record.model_version,
                "started": started,
                "ended": datetime.now(UTC),
                "outcome": outcome,
                "counts": json.dumps({**about, **record.counts}, default=str),
                "table_versions": json.dumps(dict(record.table_versions)),
                "evidence": None if record.evidence is None else json.dumps(dict(record.evidence)),
            }
        )
