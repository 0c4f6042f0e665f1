"""Twenty kills of real ingests; the long form is `crash_ingest.py` itself."""

from __future__ import annotations

from pathlib import Path

from crash_ingest import prove


def test_an_ingest_killed_at_any_moment_loses_doubles_and_shows_nothing_half(tmp_path: Path) -> None:
    report = prove(kills=20, seed=20, folder=tmp_path)
    assert report.faults == []
    assert report.kills == 20
    assert report.redone <= report.kills
