"""The tables stay open between calls, and are never those of a lake that is gone."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from catalog.tables import Tables
from tasks.settings import Settings
from tasks.workspace import open_workspace

RUN = {
    "run_id": "r1",
    "kind": "ingest",
    "started": datetime(2026, 1, 1, tzinfo=UTC),
    "outcome": "done",
    "counts": "{}",
    "table_versions": "{}",
}


def test_the_tables_stay_open_and_see_what_others_commit(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    open_workspace(settings).tables.versions()  # makes them
    kept = open_workspace(settings).tables
    assert kept.runs().empty
    Tables(settings.lake).record_run(RUN)
    coarser = open_workspace(settings.model_copy(update={"spacing_mm": (3.0, 3.0, 3.0)}))
    assert coarser.tables is kept
    assert list(kept.runs()["run_id"]) == ["r1"]


def test_a_lake_made_anew_at_the_same_place_is_another_one(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    open_workspace(settings).tables.versions()
    open_workspace(settings).tables.record_run(RUN)
    shutil.rmtree(settings.lake.folder)
    assert open_workspace(settings).tables.runs().empty
    assert open_workspace(settings).tables.versions()["runs"] == 0
