"""Commits: visible at once, never doubled, superseded and not edited, old versions readable."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableOptimizer

from catalog import delta, schema
from catalog.errors import CommitRefused
from catalog.keys import ingest_key
from catalog.tables import Tables

OTHER_KEY = ingest_key("raw", "another card", "1", (0.8, 1.5, 2.5))


def commit(tables: Tables, case_row: Any, label_row: Any, native_id: str = "case_1", **changes: Any) -> bool:
    row = case_row("kits", native_id, **changes)
    return tables.commit_case(row, [label_row(row, "liver"), label_row(row, "spleen", voxels=0, bbox=None)])


def test_empty_tables_answer_with_empty_frames_of_all_columns(tables: Tables) -> None:
    assert tables.cases().empty
    assert {"case_id", "path", "fold", "manifest"} <= set(tables.cases().columns)
    assert tables.labels().empty
    assert {"class_name", "path", "dataset"} <= set(tables.labels().columns)
    assert tables.quarantined().empty
    assert tables.runs().empty
    assert not tables.has("kits/case_1", OTHER_KEY)
    assert tables.versions() == dict.fromkeys(schema.TABLES, 0)


def test_a_case_is_visible_with_its_labels(tables: Tables, case_row: Any, label_row: Any) -> None:
    assert commit(tables, case_row, label_row)
    row = tables.cases().iloc[0]
    assert (row["case_id"], row["shape_z"], row["revision"], row["schema_version"]) == (
        "kits/case_1",
        66,
        1,
        schema.SCHEMA_VERSION,
    )
    assert list(row["spacing_mm"]) == [0.8, 1.5, 2.5]
    assert row["committed_at"] == pd.Timestamp(datetime(2026, 1, 1, tzinfo=UTC)) + pd.Timedelta(4, "s")
    labels = tables.labels()
    assert labels["class_name"].tolist() == ["spleen", "liver"]  # channel order
    assert labels["voxels"].tolist() == [0, 8]
    assert labels["path"].tolist() == [row["path"]] * 2
    assert labels["fold"].tolist() == [0, 0]
    assert list(labels.iloc[1]["bbox"]) == [0, 0, 0, 2, 2, 2]
    assert labels.iloc[0]["bbox"] is None


def test_labels_without_their_case_are_invisible_and_the_next_try_completes_it(
    tables: Tables, case_row: Any, label_row: Any
) -> None:
    row = case_row("kits", "case_1")
    rows = [label_row(row, "liver")]
    assert tables.commit_labels(rows) == 1  # as if the writer was killed between the two commits
    assert tables.labels().empty
    assert not tables.has(row["case_id"], row["ingest_key"])
    assert tables.commit_case(row, rows)
    assert len(tables.labels()) == 1


def test_a_repeated_commit_doubles_nothing(tables: Tables, case_row: Any, label_row: Any) -> None:
    assert commit(tables, case_row, label_row)
    before = tables.versions()
    assert not commit(tables, case_row, label_row)
    assert tables.versions() == before
    again = Tables(tables.location)
    assert not commit(again, case_row, label_row)
    assert (len(again.cases()), len(again.labels())) == (1, 2)


def test_a_lost_reply_doubles_nothing(
    tables: Tables, case_row: Any, label_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_deltalake
    lost: list[int] = []

    def write_and_lose_the_reply(table: DeltaTable, data: Any, **options: Any) -> None:
        real(table, data, **options)
        if len(lost) < 2:
            lost.append(1)
            raise CommitFailedError("connection reset")

    monkeypatch.setattr(delta, "write_deltalake", write_and_lose_the_reply)
    commit(tables, case_row, label_row)
    assert len(lost) == 2
    assert (len(tables.cases(history=True)), len(tables.labels())) == (1, 2)


def test_a_reply_lost_to_the_caller_doubles_nothing_either(
    tables: Tables, case_row: Any, label_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_deltalake

    def write_and_break(table: DeltaTable, data: Any, **options: Any) -> None:
        monkeypatch.setattr(delta, "write_deltalake", real)
        real(table, data, **options)
        raise OSError("connection reset")

    for _ in range(2):  # the reply to the labels, then that to the case
        monkeypatch.setattr(delta, "write_deltalake", write_and_break)
        with pytest.raises(OSError, match="connection reset"):
            commit(tables, case_row, label_row)
    assert not commit(tables, case_row, label_row)
    assert (len(tables.cases(history=True)), len(tables.labels(history=True))) == (1, 2)


def test_another_version_supersedes_and_the_old_one_stays_readable(
    tables: Tables, case_row: Any, label_row: Any
) -> None:
    first_key = case_row("kits", "case_1")["ingest_key"]
    commit(tables, case_row, label_row)
    earlier = tables.versions()
    row = case_row("kits", "case_1", ingest_key=OTHER_KEY, shape_x=9)
    assert tables.commit_case(row, [label_row(row, "pancreas")])
    assert tables.cases()[["shape_x", "revision"]].values.tolist() == [[9, 2]]
    assert tables.labels()["class_name"].tolist() == ["pancreas"]
    assert (tables.has("kits/case_1", OTHER_KEY), tables.has("kits/case_1", first_key)) == (True, False)
    assert tables.current_keys() == {"kits/case_1": OTHER_KEY}
    assert tables.cases(at_versions=earlier)["shape_x"].tolist() == [5]
    assert tables.labels(at_versions=earlier)["class_name"].tolist() == ["spleen", "liver"]
    assert tables.cases(history=True)["revision"].tolist() == [1, 2]
    assert len(tables.labels(history=True)) == 3


def test_going_back_to_an_earlier_version_makes_it_current_again(tables: Tables, case_row: Any, label_row: Any) -> None:
    commit(tables, case_row, label_row)
    commit(tables, case_row, label_row, ingest_key=OTHER_KEY)
    assert commit(tables, case_row, label_row)
    assert tables.cases()["revision"].tolist() == [3]
    assert len(tables.labels()) == 2


def test_a_case_put_right_with_other_bytes_gets_a_new_row(tables: Tables, case_row: Any, label_row: Any) -> None:
    commit(tables, case_row, label_row)
    assert commit(tables, case_row, label_row, manifest='{"files":{"zarr.json":[1,"00"]}}')
    assert tables.cases()["manifest"].tolist() == ['{"files":{"zarr.json":[1,"00"]}}']


def test_an_annotation_put_right_with_other_bytes_supersedes_its_rows(
    tables: Tables, case_row: Any, label_row: Any
) -> None:
    commit(tables, case_row, label_row)
    row = case_row("kits", "case_1")
    new = '{"files":{"labels/human/zarr.json":[1,"00"]}}'
    assert tables.commit_labels([label_row(row, name, manifest=new) for name in ("liver", "spleen")]) == 2
    assert tables.labels()[["manifest", "revision"]].values.tolist() == [[new, 2], [new, 2]]
    with pytest.raises(ValueError, match="different manifests"):
        tables.commit_labels([label_row(row, "liver", manifest=new), label_row(row, "spleen")])


def test_filters_keep_what_they_name(tables: Tables, case_row: Any, label_row: Any) -> None:
    for dataset, native_id, fold, role in [
        ("kits", "a", 0, "train"),
        ("kits", "b", 1, "train"),
        ("lits", "c", 1, "train"),
        ("ward", "d", None, "external"),
    ]:
        row = case_row(dataset, native_id, fold=fold, role=role)
        tables.commit_case(row, [label_row(row, "liver"), label_row(row, "colon", "pseudo-v2-ab", model_version="2")])
    assert tables.cases("kits")["native_id"].tolist() == ["a", "b"]
    assert tables.cases(fold=1)["native_id"].tolist() == ["b", "c"]
    assert tables.cases("lits", fold=0).empty
    assert tables.cases(role="external")["fold"].isna().tolist() == [True]
    assert tables.cases(case_ids=["kits/b", "ward/d"])["native_id"].tolist() == ["b", "d"]
    assert tables.current_keys("lits").keys() == {"lits/c"}
    assert len(tables.labels("kits", class_name="liver")) == 2
    assert tables.labels(state="pseudo", case_ids=["lits/c"])["class_name"].tolist() == ["colon"]
    assert len(tables.labels(annotation="pseudo-v2-ab")) == 4
    assert len(tables.labels(model_version="2", columns=["state"])) == 4
    assert tables.labels(model_version="3").empty


def test_a_group_has_the_fold_of_its_first_training_scan(tables: Tables, case_row: Any) -> None:
    tables.commit_case(case_row("kits", "a", split_group="g", fold=3))
    tables.commit_case(case_row("lits", "b", split_group="g", fold=1))
    tables.commit_case(case_row("ward", "c", split_group="g", fold=None, role="external"))
    assert tables.cases().set_index("native_id")["fold"].fillna(-1).to_dict() == {"a": 3, "b": 3, "c": -1}
    assert tables.cases("lits")["fold"].tolist() == [3]
    assert tables.cases(fold=1).empty
    # A later version of the first scan does not move the group.
    tables.commit_case(case_row("kits", "a", split_group="g", fold=2, ingest_key=OTHER_KEY))
    assert tables.cases(role="train")["fold"].tolist() == [3, 3]


def test_many_cases_are_committed_at_once(tables: Tables, case_row: Any, label_row: Any) -> None:
    rows = [case_row("kits", f"case_{number}") for number in range(5)]
    pairs = [(row, [label_row(row, "liver")]) for row in rows]
    assert tables.commit_cases(pairs[:2]) == ["kits/case_0", "kits/case_1"]
    assert tables.commit_cases(pairs) == ["kits/case_2", "kits/case_3", "kits/case_4"]
    assert tables.versions()["cases"] == tables.versions()["labels"] == 2
    with pytest.raises(ValueError, match="each case once"):
        tables.commit_cases([pairs[0], pairs[0]])


def test_a_bad_case_row_commits_no_labels(tables: Tables, case_row: Any, label_row: Any) -> None:
    row = case_row("kits", "case_1")
    with pytest.raises(ValueError, match="missing"):
        tables.commit_case({**row, "path": None}, [label_row(row, "liver")])
    assert tables.versions()["labels"] == 0


def test_pseudo_labels_stand_beside_human_ones_and_are_never_edited(
    tables: Tables, case_row: Any, label_row: Any
) -> None:
    commit(tables, case_row, label_row)
    row = case_row("kits", "case_1")
    pseudo = [label_row(row, name, "pseudo-v1-ab", model_version="1") for name in ("liver", "colon")]
    assert tables.commit_labels(pseudo) == 2
    assert tables.commit_labels(pseudo) == 0
    assert tables.labels(class_name="liver")["state"].tolist() == ["annotated", "pseudo"]
    with pytest.raises(CommitRefused, match="other classes"):
        tables.commit_labels(pseudo[:1])
    with pytest.raises(ValueError, match="one row a class"):
        tables.commit_labels([pseudo[0], pseudo[0]])
    assert tables.commit_labels([]) == 0


def test_the_same_refusal_is_recorded_once(tables: Tables) -> None:
    row = {"dataset": "kits", "native_id": "x", "code": "crc", "where": "kits/x", "found": "1", "expected": "2"}
    row = {**row, "remedy": "download again", "raw_sha256": "ab"}
    assert tables.quarantine([row]) == 1
    assert tables.quarantine([row, {**row, "raw_sha256": "cd"}, {**row, "raw_sha256": None}]) == 2
    assert tables.quarantine([]) == 0
    assert tables.quarantined("kits")["code"].tolist() == ["crc"] * 3
    assert tables.quarantined("lits").empty


def test_a_run_shows_its_last_record(tables: Tables) -> None:
    started = datetime(2026, 1, 1, 12, tzinfo=UTC)
    row = {"run_id": "r1", "kind": "ingest", "started": started, "outcome": "running", "counts": "{}"}
    row = {**row, "table_versions": "{}"}
    assert tables.record_run(row)
    assert not tables.record_run(row)
    assert tables.record_run({**row, "outcome": "done", "ended": started})
    assert tables.record_run({**row, "run_id": "r2", "kind": "train"})
    assert tables.runs()[["run_id", "outcome"]].values.tolist() == [["r1", "done"], ["r2", "running"]]
    assert tables.runs("train")["run_id"].tolist() == ["r2"]


def test_compaction_changes_no_row_no_token_and_no_old_version(tables: Tables, case_row: Any, label_row: Any) -> None:
    for number in range(4):
        commit(tables, case_row, label_row, f"case_{number}")
    earlier, before = tables.versions(), tables.cases()
    assert tables.compact()["cases"] == 4
    pd.testing.assert_frame_equal(tables.cases(), before)
    pd.testing.assert_frame_equal(Tables(tables.location).cases(at_versions=earlier), before)
    assert not commit(Tables(tables.location), case_row, label_row, "case_1")
    assert len(DeltaTable(tables.location.folder / "tables/cases").file_uris()) == 1


def test_two_compactions_at_once_double_no_row(
    tables: Tables, case_row: Any, label_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        commit(tables, case_row, label_row, f"case_{number}")
    other = Tables(tables.location)
    join = TableOptimizer.compact

    def join_late(optimizer: TableOptimizer, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(TableOptimizer, "compact", join)  # another one begins and ends before this one joins
        assert other._tables["labels"].compact() == 4
        return join(optimizer, **options)

    monkeypatch.setattr(TableOptimizer, "compact", join_late)
    assert tables._tables["labels"].compact() == 0
    assert len(Tables(tables.location).labels(history=True)) == 8
    assert len(DeltaTable(tables.location.folder / "tables/labels").file_uris()) == 1


def test_small_files_are_joined_on_the_way(
    tables: Tables, case_row: Any, label_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "COMPACT_EVERY", 5)
    seen = []
    for number in range(12):
        commit(tables, case_row, label_row, f"case_{number}")
        seen.append((tables.versions()["cases"], len(tables.cases())))
    # The fifth commit is followed by version 7 that joins, the eighth is version 10 and followed by 12.
    assert [version for version, _ in seen] == [1, 2, 3, 4, 7, 8, 9, 12, 13, 14, 17, 18]
    assert [cases for _, cases in seen] == list(range(1, 13))
    assert len(tables.labels()) == 24


def test_joining_that_fails_does_not_fail_the_commit(
    tables: Tables, case_row: Any, label_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_args: Any, **_options: Any) -> None:
        raise CommitFailedError("another writer joined them")

    monkeypatch.setattr(delta, "COMPACT_EVERY", 1)
    monkeypatch.setattr(delta.AppendTable, "compact", lose)
    assert commit(tables, case_row, label_row)
    assert len(tables.cases()) == 1


def test_a_folder_with_odd_characters_works_or_is_refused(tmp_path: Path, case_row: Any) -> None:
    tables = Tables(tmp_path / "my lake #1 é?")
    tables.commit_case(case_row("kits", "case_1"))
    assert len(tables.cases()) == 1
    with pytest.raises(ValueError, match="without %"):
        Tables(tmp_path / "my%20lake")


def test_a_version_that_is_not_there_is_named(tables: Tables) -> None:
    with pytest.raises(ValueError, match=r"version 7 asked for, expected 0\.\.0"):
        tables.cases(at_versions={"cases": 7})


def test_writers_that_always_lose_give_up_aloud(
    tmp_path: Path, tables: Tables, case_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_args: Any, **_options: Any) -> None:
        raise CommitFailedError("another writer")

    monkeypatch.setattr(delta, "write_deltalake", lose)
    monkeypatch.setattr(delta, "ATTEMPTS", 2)
    with pytest.raises(CommitRefused, match="2 commits lost against other writers"):
        tables.commit_case(case_row("kits", "case_1"))


def test_tables_can_be_sent_to_another_process(tables: Tables, case_row: Any) -> None:
    tables.commit_case(case_row("kits", "case_1"))
    assert len(pickle.loads(pickle.dumps(Tables(tables.location))).cases()) == 1


def test_threads_share_one_tables(tables: Tables, case_row: Any, label_row: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: commit(tables, case_row, label_row, f"case_{n % 6}"), range(12)))
    assert sum(done) == 6
    assert (len(tables.cases(history=True)), len(tables.labels())) == (6, 12)


def _commit_in_process(root: str, rows: Any, barrier: Any, results: Any) -> None:
    tables = Tables(root)
    barrier.wait()
    results.put([tables.commit_case(case, labels) for case, labels in rows])


@pytest.mark.parametrize("place", ["folder", "object store"])
def test_processes_creating_and_filling_one_lake_lose_and_double_nothing(
    place: str, case_row: Any, label_row: Any, request: pytest.FixtureRequest
) -> None:
    root = str(request.getfixturevalue("tmp_path" if place == "folder" else "s3_root"))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    shared = [case_row("kits", f"shared_{number}") for number in range(3)]
    writers = []
    for writer in range(3):
        # Each brings three cases of its own and the same three as the others, with another version by one of them.
        own = [case_row("kits", f"own_{writer}_{number}") for number in range(3)]
        changed = [{**row, "ingest_key": OTHER_KEY} if writer == 2 else row for row in shared]
        rows = [(row, [label_row(row, "liver")]) for pair in zip(own, changed, strict=True) for row in pair]
        writers.append(context.Process(target=_commit_in_process, args=(root, rows, barrier, results)))
    for process in writers:
        process.start()
    outcomes = [results.get(timeout=200) for _ in writers]
    for process in writers:
        process.join()
    tables = Tables(root)
    everything = tables.cases(history=True)
    assert len(tables.cases()) == 12
    assert len(everything) == sum(map(sum, outcomes))
    assert not everything.duplicated(["case_id", "revision"]).any()
    assert not tables.labels(history=True).duplicated(["case_id", "ingest_key", "class_name"]).any()


def test_conflicting_commits_of_one_key_are_refused_by_the_log(tmp_path: Path, case_row: Any) -> None:
    """The guarantee that everything above rests on: a stale writer with the same key cannot commit."""
    tables = Tables(tmp_path)
    tables.cases()
    stale = DeltaTable(tmp_path / "tables/cases")
    tables.commit_case(case_row("kits", "case_1"))
    data = schema.arrow_rows("cases", [])
    with pytest.raises(CommitFailedError):
        write_deltalake(
            stale,
            data,
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction(delta.slot("kits/case_1"), 7)]),
        )


def test_members_of_a_split_group_are_those_of_the_current_versions(tables: Tables, case_row: Any) -> None:
    group, other = "a" * 16, "b" * 16
    for dataset in ("lits", "msd_liver"):
        tables.commit_case({**case_row(dataset, "case_1"), "split_group": group})
    tables.commit_case({**case_row("lits", "case_1"), "ingest_key": OTHER_KEY, "split_group": other})
    assert tables.group_members(group) == ["msd_liver/case_1"]
    assert tables.group_members(other) == ["lits/case_1"]
    assert tables.group_members("c" * 16) == []


def test_a_table_made_with_other_words_and_fewer_columns_goes_on(
    tmp_path: Path, case_row: Any, label_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lake of an earlier version: a column described otherwise, another one not there yet."""
    earlier = dict(schema.LABELS)
    del earlier["hu_mean"]
    earlier["ml"] = replace(earlier["ml"], meaning="size")
    case = case_row("kits", "case_1")
    with monkeypatch.context() as older:
        older.setitem(schema.TABLES, "labels", earlier)
        schema.arrow_schema.cache_clear()
        row = {name: value for name, value in label_row(case, "liver").items() if name != "hu_mean"}
        Tables(tmp_path).commit_case(case, [row])
    schema.arrow_schema.cache_clear()
    second = case_row("kits", "case_2")
    Tables(tmp_path).commit_case(second, [{**label_row(second, "liver"), "hu_mean": 42.0}])
    found = Tables(tmp_path).labels().set_index("case_id")["hu_mean"]
    assert pd.isna(found["kits/case_1"])
    assert found["kits/case_2"] == 42.0


def test_events_and_moves_are_added_once_and_read_oldest_first(tables: Tables) -> None:
    label = {"case_id": "kits/1", "ingest_key": "k", "class_name": "liver", "annotation": "pseudo-v1"}
    events = [{**label, "event_id": name, "event": name, "who": "a", "why": "b"} for name in ("rejected", "accepted")]
    assert [tables.record_events(events[:1]), tables.record_events(events), tables.record_events(events)] == [1, 1, 0]
    assert tables.events(["kits/1"])["event"].tolist() == ["rejected", "accepted"]
    assert tables.events(["kits/2"]).empty
    move = {"move_id": "m", "model_name": "universal", "move": "promoted", "version": "2", "champion_after": "2"}
    move |= {"who": "a", "why": "b", "gates": "[]"}
    assert [tables.record_moves([move]), tables.record_moves([move])] == [1, 0]
    assert tables.moves("universal")["champion_before"].isna().tolist() == [True]
    assert tables.moves("other").empty
