"""Garbage collection: every orphan goes, nothing that a row names or a running writer will commit ever does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_rows import GEOMETRY, Clock, make_case_row, make_label, make_label_row, make_scan

from catalog import garbage
from catalog.files import LocalFiles
from catalog.garbage import collect_garbage
from catalog.lake import Lake
from catalog.lake_stats import lake_stats
from catalog.objects import REMOVING, ObjectFiles
from catalog.tables import Tables
from catalog.verify import verify

NONE = timedelta(0)
OLD = timedelta(hours=30)
PSEUDO = "pseudo-v1-00ff"


def age(lake: Lake, below: str = "volumes") -> None:
    """Make every file of a local lake as old as one that was written yesterday."""
    then = (datetime.now(UTC) - OLD).timestamp()
    for path in (lake.root / below).rglob("*"):
        with suppress(FileNotFoundError):  # removed meanwhile
            os.utime(path, (then, then))


def kinds(lake: Lake, tables: Tables, **options: Any) -> list[tuple[str, str]]:
    return [(orphan.kind, orphan.path) for orphan in collect_garbage(tables, lake, **options)]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Lake, Tables]:
    """An empty lake, in a folder and in an object store."""
    root = tmp_path if request.param == "local" else request.getfixturevalue("s3_root")
    return Lake(root), Tables(root, now=Clock())


def commit(lake: Lake, tables: Tables, name: str = "case_1", seed: int = 0) -> dict[str, Any]:
    key = make_case_row("kits", name)["ingest_key"]
    stored = lake.write_case("kits", name, key, make_scan(seed), GEOMETRY, {"human": make_label(seed)})
    row = make_case_row("kits", name, stored)
    manifest = stored.annotation_manifest("human").to_json()
    tables.commit_case(row, [make_label_row(row, "liver", manifest=manifest)])
    return row


def test_orphans_are_removed_and_what_rows_name_stays(place: tuple[Lake, Tables]) -> None:
    lake, tables = place
    row = commit(lake, tables)
    named = lake.write_annotation(row["path"], "pseudo-v2-00ff", make_label(2))
    tables.commit_labels([make_label_row(row, "liver", "pseudo-v2-00ff", manifest=named.to_json())])
    sound = lake.files.list("volumes")
    lake.write_annotation(row["path"], PSEUDO, make_label(1))  # its rows were never committed
    lost = lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})  # nor those of this case
    lake.write_annotation(lost.path, PSEUDO, make_label(1))
    expected = [("annotation", f"{row['path']}/labels/{PSEUDO}"), ("case", lost.path)]
    before = lake.files.list("volumes")
    assert kinds(lake, tables, grace=NONE, dry_run=True) == expected
    assert lake.files.list("volumes") == before
    found = collect_garbage(tables, lake, NONE)
    assert [(orphan.kind, orphan.path) for orphan in found] == expected
    gone = before.keys() - sound.keys()
    assert {name for orphan in found for name in orphan.names} == gone
    assert sum(orphan.bytes for orphan in found) == sum(before[name].size for name in gone)
    assert lake.files.list("volumes").keys() == sound.keys()
    assert verify(tables, lake, read_data=True) == []
    assert collect_garbage(tables, lake, NONE) == []


def test_what_is_young_stays(place: tuple[Lake, Tables]) -> None:
    lake, tables = place
    lost = lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
    before = lake.files.list("volumes").keys()
    assert collect_garbage(tables, lake, timedelta(hours=1)) == []
    assert lake.files.list("volumes").keys() == before
    assert kinds(lake, tables, grace=NONE) == [("case", lost.path)]
    assert lake.files.list("volumes") == {}


def test_superseded_versions_and_withdrawn_cases_stay_readable(lake: Lake, tables: Tables) -> None:
    old = commit(lake, tables)
    stored = lake.write_case("kits", "case_1", "e" * 64, make_scan(3), {}, {"human": make_label(3)})
    new = make_case_row("kits", "case_1", stored, ingest_key="e" * 64)
    tables.commit_case(new, [make_label_row(new, "liver", manifest=stored.annotation_manifest("human").to_json())])
    gone = commit(lake, tables, "case_2", seed=4)
    tables.withdraw(["kits/case_2"], "consent withdrawn")
    age(lake)
    assert collect_garbage(tables, lake) == []
    assert verify(tables, lake, read_data=True) == []
    for row, seed in ((old, 0), (new, 3), (gone, 4)):
        np.testing.assert_array_equal(lake.open_image(row).read(), make_scan(seed).array)


def test_what_a_killed_writer_left_aside_goes_and_strangers_stay(lake: Lake, tables: Tables) -> None:
    row = commit(lake, tables)
    home = Path(row["path"]).parent
    (lake.root / home / ".0123456789ab.partial/0").mkdir(parents=True)
    for name in (".0123456789ab.partial/0/zarr.json", ".0123456789ab.manifest.json.partial", "notes.txt"):
        (lake.root / home / name).write_text("half a fi")
    (lake.root / row["path"] / "labels/.zarr.json.partial").write_text("half")
    (lake.root / home / "fedcba987654.manifest.json").write_text("{}")  # its case was never renamed into place
    age(lake)
    assert kinds(lake, tables) == [
        ("leftover", f"{home}/.0123456789ab.manifest.json.partial"),
        ("leftover", f"{home}/.0123456789ab.partial"),
        ("leftover", f"{row['path']}/labels/.zarr.json.partial"),
        ("case", f"{home}/fedcba987654.zarr"),
    ]
    assert (lake.root / home / "notes.txt").exists()
    assert not list((lake.root / home).rglob("*.partial"))
    assert collect_garbage(tables, lake) == []
    assert verify(tables, lake, read_data=True) == []


@pytest.mark.parametrize("annotation", [None, PSEUDO])
def test_an_orphan_that_a_writer_takes_up_again_is_young(lake: Lake, tables: Tables, annotation: str | None) -> None:
    row = commit(lake, tables)

    def write() -> None:
        if annotation is None:
            lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
        else:
            lake.write_annotation(row["path"], annotation, make_label(1))

    write()
    age(lake)
    assert len(collect_garbage(tables, lake, dry_run=True)) == 1
    write()  # finds it sound and leaves it as it is
    assert collect_garbage(tables, lake) == []


def test_an_orphan_taken_up_while_its_removal_waits_stays(
    lake: Lake, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
    age(lake)
    entered = LocalFiles.emptying

    def taken_up_first(files: LocalFiles, home: str) -> Any:
        assert not lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {}).created
        return entered(files, home)

    monkeypatch.setattr(LocalFiles, "emptying", taken_up_first)
    assert collect_garbage(tables, lake) == []
    row = make_case_row("kits", "case_2", stored, ingest_key="f" * 64)
    tables.commit_case(row)
    assert verify(tables, lake, read_data=True) == []


def test_an_orphan_committed_while_its_removal_waits_stays(
    lake: Lake, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
    age(lake)
    entered = LocalFiles.emptying

    def committed_first(files: LocalFiles, home: str) -> Any:
        tables.commit_case(make_case_row("kits", "case_2", stored, ingest_key="f" * 64))
        return entered(files, home)

    monkeypatch.setattr(LocalFiles, "emptying", committed_first)
    assert collect_garbage(tables, lake) == []
    assert verify(tables, lake, read_data=True) == []


def test_objects_put_while_a_removal_runs_are_put_again_when_it_is_over(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, tables = Lake(s3_root), Tables(s3_root, now=Clock())
    stored = lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
    marked, put = threading.Event(), threading.Event()
    removing = garbage._remove

    def remove_late(*arguments: Any) -> None:
        marked.set()
        assert put.wait(60)  # the writer has put its objects and found the mark
        removing(*arguments)

    monkeypatch.setattr(garbage, "_remove", remove_late)
    collector = threading.Thread(target=collect_garbage, args=(tables, lake, NONE))
    collector.start()
    assert marked.wait(60)
    listing = ObjectFiles.list

    def listed(files: ObjectFiles, below: str) -> Any:
        found = listing(files, below)
        if any(name.endswith(REMOVING) for name in found) and threading.current_thread() is threading.main_thread():
            put.set()
        return found

    monkeypatch.setattr(ObjectFiles, "list", listed)
    lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
    collector.join()
    tables.commit_case(make_case_row("kits", "case_2", stored, ingest_key="f" * 64))
    assert verify(tables, lake, read_data=True) == []
    assert not any(name.endswith(REMOVING) for name in lake.files.list("volumes"))


def test_a_mark_that_a_killed_removal_left_is_taken_away(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, tables = Lake(s3_root), Tables(s3_root, now=Clock())
    lost = lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
    mark = f"volumes/kits/case_2/{REMOVING}"
    lake.location.store.put(mark, b"")
    assert collect_garbage(tables, lake, NONE) == []  # another one is at it
    monkeypatch.setattr("catalog.objects.STALE", timedelta(seconds=-1))
    lake.write_case("kits", "case_2", "f" * 64, make_scan(1), {})
    assert mark not in lake.files.list("volumes")
    lake.location.store.put(mark, b"")
    assert kinds(lake, tables, grace=NONE) == [("case", lost.path)]
    assert lake.files.list("volumes") == {}


def test_writers_and_collectors_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each case is written, grows old as an orphan, and is written again and committed while two collectors run."""
    lake, tables = Lake(tmp_path), Tables(tmp_path, now=Clock())
    done = threading.Event()
    removed: list[str] = []

    def collect() -> None:
        while not done.is_set():
            removed.extend(orphan.path for orphan in collect_garbage(Tables(tmp_path), Lake(tmp_path)))

    def write(number: int) -> bool:
        name = f"case_{number}"
        key = make_case_row("kits", name)["ingest_key"]
        lake.write_case("kits", name, key, make_scan(number, (8, 8, 8)), GEOMETRY)
        age(lake, f"volumes/kits/{name}")
        deadline = time.monotonic() + (30 if number % 4 == 0 else number * 0.02)
        while lake.files.list(f"volumes/kits/{name}") and time.monotonic() < deadline:
            time.sleep(0.002)  # from taken up at once to removed just now
        stored = lake.write_case("kits", name, key, make_scan(number, (8, 8, 8)), GEOMETRY)
        return tables.commit_case(make_case_row("kits", name, stored))

    collectors = [threading.Thread(target=collect) for _ in range(2)]
    for thread in collectors:
        thread.start()
    with ThreadPoolExecutor(2) as writers:
        assert all(writers.map(write, range(12)))
    done.set()
    for thread in collectors:
        thread.join()
    assert removed
    assert len(tables.cases()) == 12
    assert verify(tables, lake, read_data=True) == []


def test_figures_add_up_to_what_lies_there(lake: Lake, tables: Tables, ingested: Callable[..., Any]) -> None:
    ingested()
    ingested("lits", "case_9", seed=4)
    lost = lake.write_case("lits", "case_8", "f" * 64, make_scan(1), {})
    found = lake_stats(tables, lake)
    by_name = {item.dataset: item for item in found.datasets}
    assert [(item.cases, item.versions, item.arrays) for item in found.datasets] == [(1, 1, 6), (1, 1, 6)]
    paths = [path for path in (lake.root / "volumes").rglob("*") if path.is_file()]
    assert sum(sum(item.files.values()) for item in found.datasets) == len(paths)
    assert sum(sum(item.bytes.values()) for item in found.datasets) == sum(path.stat().st_size for path in paths)
    # two array files, a shard and its metadata, at each of three levels; the group's own metadata with the finest
    assert by_name["kits"].files == {"image": 3, "labels": 4, "levels": 8, "notes": 1, "orphans": 0, "other": 0}
    assert by_name["lits"].bytes["orphans"] == lost.manifest.bytes + sum(
        path.stat().st_size for path in (lake.root / "volumes/lits/case_8").glob("*.json")
    )
    stored = by_name["kits"].bytes["image"]
    assert by_name["kits"].image_ratio == pytest.approx(2 * 5 * 37 * 66 / stored)
    tables_there = [path for path in (lake.root / "tables").rglob("*") if path.is_file()]
    assert (found.table_files, found.table_bytes) == (len(tables_there), sum(p.stat().st_size for p in tables_there))
