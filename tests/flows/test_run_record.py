"""The row a run leaves behind names the tables as the run read them, whatever was committed while it ran."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.queries import run_snapshot
from flows.run_record import recorded_run
from tasks.settings import Settings
from tasks.workspace import open_workspace

REFUSED = {"dataset": "kits", "code": "crc", "where": "w", "found": "f", "expected": "e", "remedy": "r"}


@pytest.mark.parametrize("known", [None, {"cases": 0, "quarantine": 1}])
def test_a_run_names_the_tables_it_read(tmp_path: Path, known: dict[str, int] | None) -> None:
    settings = Settings(workspace=tmp_path)
    tables = open_workspace(settings).tables
    started = datetime.now(UTC)
    before = tables.versions()
    with recorded_run("train", settings, {}) as record:
        tables.quarantine([{**REFUSED, "native_id": "1"}])  # by another writer
        if known is not None:
            record.table_versions = known
    (row,) = tables.runs().to_dict("records")
    assert row["started"] >= started
    assert run_snapshot(tables, row["run_id"]) == (known or before)
    assert tables.versions()["quarantine"] == 1
