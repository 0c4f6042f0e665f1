"""Four kills of real promotions; the long form is `crash_promotion.py` itself."""

from __future__ import annotations

from pathlib import Path

from crash_promotion import prove


def test_a_promotion_killed_at_any_moment_leaves_one_champion_and_is_finished_by_the_next(tmp_path: Path) -> None:
    report = prove(kills=4, seed=6, folder=tmp_path)
    assert report.faults == []
    assert report.kills == 4
