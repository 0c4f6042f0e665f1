"""Three writers with a reader, compaction and garbage collection; the long form is `concurrent_appends.py` itself."""

from __future__ import annotations

from pathlib import Path

from concurrent_appends import prove


def test_writers_readers_compaction_and_garbage_collection_at_once_lose_double_and_tear_nothing(tmp_path: Path) -> None:
    report = prove(writers=3, appends=12, readers=1, folder=tmp_path)
    assert report.faults == []
    assert report.cases == 3 * 9 + 3
    assert report.looks > 0
    assert report.compactions > 0
