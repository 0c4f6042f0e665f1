"""Four kills of real pseudo-label runs; the long form is `crash_pseudo_label.py` itself."""

from __future__ import annotations

from pathlib import Path

from crash_pseudo_label import SCANS, prove


def test_a_run_killed_at_any_moment_labels_every_scan_once_and_predicts_none_again(tmp_path: Path) -> None:
    report = prove(kills=4, seed=6, folder=tmp_path)
    assert report.faults == []
    assert report.kills == 4
    assert report.predicted >= SCANS * report.runs
