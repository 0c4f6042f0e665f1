"""What the tables say of one case, of a run's snapshot, as plain files and in SQL; answers worked out by hand."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from catalog import plain_export, queries, sql
from catalog.plain import plain_value
from catalog.plain_export import export_tables
from catalog.reports import case_history, describe_case
from catalog.tables import Tables

NEW_CARD = {"card_digest": "card 2", "ingest_key": "k2", "spacing_mm": [1.0, 1.0, 1.0]}


@pytest.fixture
def filled(tables: Tables, case_row: Any, label_row: Any) -> Tables:
    # kits/a: liver there, spleen absent, then a pseudo liver; made anew once with another card and grid.
    # kits/b: the twin of a, without labels. lits/c: refused.
    a = case_row("kits", "a", steps=['{"step": "resample", "spacing_mm": [1, 1, 1]}'], flags=["[odd] flag"])
    b = case_row("kits", "b", split_group=a["split_group"], fold=3)
    tables.commit_case(a, [label_row(a, "liver"), label_row(a, "spleen", voxels=0, ml=0.0, components=0)])
    again = {**a, **NEW_CARD}
    tables.commit_case(
        again,
        [
            label_row(again, "liver", ml=1500.0, hu_mean=55.0),
            label_row(again, "spleen", voxels=0, ml=0.0, components=0, bbox=None, centroid_mm=None),
        ],
    )
    model = {"model_name": "universal", "model_version": "7", "quality_score": 0.25, "ml": 1400.0}
    tables.commit_labels([label_row(again, "liver", "pseudo-v7", **model)])
    tables.commit_case(b)
    refused = {"code": "crc", "where": "w", "found": "41", "expected": "42", "remedy": "fetch it again"}
    tables.quarantine([{"dataset": "lits", "native_id": "c", **refused}])
    return tables


def run_row(run_id: str, versions: dict[str, int], **changes: Any) -> dict[str, Any]:
    started = pd.Timestamp("2026-01-02", tz="UTC").to_pydatetime()
    row = {"run_id": run_id, "kind": "train", "started": started, "outcome": "done", "counts": "{}"}
    return {**row, "table_versions": json.dumps(versions), **changes}


def test_a_case_is_told_with_its_group_versions_and_labels(filled: Tables) -> None:
    report = describe_case(filled, "kits/a")
    assert (report.case["revision"], report.versions, report.group) == (2, 2, ["kits/a", "kits/b"])
    assert report.case["steps"] == [{"step": "resample", "spacing_mm": [1, 1, 1]}]
    assert report.case["fold"] == 0
    assert [(row["class_name"], row["state"], row["ml"]) for row in report.labels] == [
        ("spleen", "annotated", 0.0),
        ("liver", "annotated", 1500.0),
        ("liver", "pseudo", 1400.0),
    ]
    assert report.labels[0]["hu_mean"] is None
    assert len(report.unlabelled) == 30
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False)) == report.as_dict()


def test_the_twin_shows_the_fold_of_its_group_and_no_labels(filled: Tables) -> None:
    report = describe_case(filled, "kits/b")
    assert (report.case["fold"], report.labels, len(report.unlabelled)) == (0, [], 32)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("kits/A", "nearest: kits/a, kits/b"),
        ("B", "nearest: kits/b"),
        ("zzz", "none of 2 cases is called alike"),
        ("lits/c", "was refused: crc: found 41, expected 42; fetch it again"),
    ],
)
def test_an_unknown_case_is_told_from_a_refused_one(filled: Tables, asked: str, told: str) -> None:
    for question in (describe_case, case_history):
        with pytest.raises(KeyError, match=told):
            question(filled, asked)


def test_history_says_what_changed_and_what_superseded_what(filled: Tables) -> None:
    history = case_history(filled, "kits/a")
    assert [(row["revision"], row["changed"], row["superseded_by"]) for row in history.versions] == [
        (1, [], 2),
        (2, ["card", "grid"], None),
    ]
    assert history.versions[0]["committed_at"] < history.versions[1]["committed_at"]
    assert [
        (row["revision"], row["annotation"], row["classes"], row["model_version"]) for row in history.annotations
    ] == [(1, "human", 2, None), (2, "human", 2, None), (2, "pseudo-v7", 1, "7")]


def test_a_version_written_again_with_other_files_says_so(tables: Tables, case_row: Any) -> None:
    tables.commit_case(case_row("kits", "a"))
    tables.commit_case(case_row("kits", "a", manifest='{"files":{"x":[1,"00"]}}'))
    assert case_history(tables, "kits/a").versions[1]["changed"] == ["files"]


def test_commits_of_a_table_newest_first(filled: Tables) -> None:
    commits = filled.commits("labels")
    assert [(entry["version"], entry["rows"]) for entry in commits] == [(3, 1), (2, 2), (1, 2), (0, 0)]
    with pytest.raises(KeyError, match="expected cases, labels, quarantine, runs"):
        filled.commits("label")


def test_a_run_gives_back_the_tables_it_read(filled: Tables, case_row: Any, label_row: Any) -> None:
    read = filled.versions()
    filled.record_run(run_row("r1", read, mlflow_run_id="m1", flow_run_id="f1"))
    later = case_row("lits", "d")
    filled.commit_case(later, [label_row(later, "liver")])
    for name in ("r1", "m1", "f1"):
        versions = queries.run_snapshot(filled, name)
        assert versions == read
        assert filled.cases(at_versions=versions)["case_id"].tolist() == ["kits/a", "kits/b"]
        assert queries.coverages(filled, "annotated", versions)["cases"].loc["liver"].sum() == 1
    assert queries.coverages(filled, "annotated")["cases"].loc["liver"].sum() == 2
    with pytest.raises(KeyError, match=r"unknown run 'r9'; the last ones: r1 \(train\)"):
        queries.run_snapshot(filled, "r9")


def test_coverages_agree_with_each_single_one(filled: Tables) -> None:
    for state in ("annotated", "pseudo", None):
        for value, matrix in queries.coverages(filled, state).items():
            pd.testing.assert_frame_equal(matrix, queries.coverage(filled, value, state))
    assert queries.coverage(filled, "present", "annotated").loc["spleen"].sum() == 0


def test_a_mistyped_class_is_an_error_and_not_an_empty_answer(filled: Tables) -> None:
    with pytest.raises(KeyError, match="nearest: liver"):
        queries.labelled_cases(filled, "livr")
    with pytest.raises(KeyError, match="nearest: liver"):
        queries.low_quality(filled, "livr", 0.5)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.array([1, 2]), [1, 2]),
        (np.float64("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Timestamp("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05+00:00"),
        ({"a": np.int32(1)}, {"a": 1}),
        (np.bool_(True), True),
    ],
)
def test_values_become_what_json_knows(value: Any, plain: Any) -> None:
    assert plain_value(value) == plain
    assert type(plain_value(value)) is type(plain)


def test_parquet_export_holds_current_rows_with_units(filled: Tables, tmp_path: Path) -> None:
    export = export_tables(filled, tmp_path / "out" / "x", "parquet")
    assert export.rows == {"cases": 2, "labels": 3, "quarantine": 1, "runs": 0}
    cases = pq.read_table(export.folder / "cases.parquet")
    assert cases.column("ingest_key").to_pylist()[0] == "k2"
    assert cases.column("fold").to_pylist() == [0, 0]
    assert cases.schema.field("spacing_mm").metadata[b"unit"] == b"mm"
    labels = pq.read_table(export.folder / "labels.parquet").to_pylist()
    assert [row["dataset"] for row in labels] == ["kits"] * 3
    assert [row["bbox"] for row in labels] == [None, [0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2]]
    contents = json.loads((export.folder / "catalog.json").read_text())
    assert contents["table_versions"] == filled.versions()
    assert contents["columns"]["labels"]["ml"]["unit"] == "ml"
    assert sorted(path.name for path in export.folder.parent.iterdir()) == ["x"]


def test_csv_export_writes_lists_as_json_and_null_as_nothing(filled: Tables, tmp_path: Path) -> None:
    folder = export_tables(filled, tmp_path / "x", "csv").folder
    with (folder / "cases.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert json.loads(first["spacing_mm"]) == [1.0, 1.0, 1.0]
    assert json.loads(json.loads(first["steps"])[0])["step"] == "resample"
    assert (first["fold"], first["licence"], first["tumour_free"]) == ("0", "", "[]")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class_name"], row["ml"], row["bbox"]) for row in rows] == [
        ("spleen", "0", ""),
        ("liver", "1500", "[0, 0, 0, 2, 2, 2]"),
        ("liver", "1400", "[0, 0, 0, 2, 2, 2]"),
    ]


def test_export_replaces_only_an_earlier_export(filled: Tables, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    export_tables(filled, folder, "csv")
    with pytest.raises(FileExistsError, match="give --replace"):
        export_tables(filled, folder, "parquet")
    export_tables(filled, folder, "parquet", replace=True)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", *[".parquet"] * 4]
    (folder / "thesis.docx").write_text("mine")
    with pytest.raises(FileExistsError, match=r"found thesis\.docx.* name another folder"):
        export_tables(filled, folder, "parquet", replace=True)
    with pytest.raises(ValueError, match="expected parquet or csv"):
        export_tables(filled, tmp_path / "y", "xlsx")


def test_a_failed_export_leaves_the_earlier_one(
    filled: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    export_tables(filled, folder, "csv")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(plain_export, "sync_tree", full)
    with pytest.raises(OSError, match="no space left"):
        export_tables(filled, folder, "csv", replace=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(tmp_path.glob(".x*"))


def test_an_export_after_a_killed_one_goes_through(filled: Tables, tmp_path: Path) -> None:
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "cases.csv").write_text("half")
    assert export_tables(filled, tmp_path / "x", "csv").rows["cases"] == 2


@pytest.fixture
def duckdb() -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'ct-label-factory[sql]'")


def test_sql_sees_current_rows_of_each_table(filled: Tables, duckdb: None) -> None:
    columns, rows = sql.query(
        filled,
        "SELECT dataset, state, sum(voxels) n, any_value(bbox) box, max(committed_at) t FROM Labels "
        "WHERE class_name = 'liver' GROUP BY ALL ORDER BY state",
    )
    assert columns == ["dataset", "state", "n", "box", "t"]
    assert [row[:4] for row in rows] == [("kits", state, 8, [0, 0, 0, 2, 2, 2]) for state in ("annotated", "pseudo")]
    assert rows[0][4].endswith("+00:00")
    assert sql.query(filled, "SELECT count(*) FROM cases, quarantine")[1] == [(2,)]
    assert [name for (name,) in sql.query(filled, "SHOW TABLES")[1]] == ["cases", "labels", "quarantine", "runs"]


def test_bulky_columns_are_there_where_they_are_named(filled: Tables, duckdb: None) -> None:
    assert "manifest" not in sql.query(filled, "SELECT * FROM cases")[0]
    assert sql.query(filled, "SELECT DISTINCT manifest FROM cases")[1] == [('{"files":{}}',)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("DROP VIEW cases", "found DROP, expected one SELECT"),
        ("DELETE FROM cases", "found DELETE, expected one SELECT"),
        ("SELECT 1; SELECT 2", "found SELECT, SELECT, expected one SELECT"),
        ("COPY cases TO 'out.csv'", "found COPY, expected one SELECT"),
        ("ATTACH 'x.db'", "found ATTACH, expected one SELECT"),
        ("SET enable_external_access = true", "found SET"),
        ("", "found nothing, expected one SELECT"),
        ("SELECT * FROM read_text('secret.txt')", "file system operations are disabled"),
        ("SELECT * FROM 'secret.txt'", "query: "),
        ("SELECT * FROM filled", "filled does not exist"),
        ("SELECT nope FROM cases", "nope"),
        ("SELEC 1", "syntax error.*; tables: cases, labels, quarantine, runs"),
    ],
)
def test_sql_reads_the_views_and_nothing_else(
    filled: Tables, duckdb: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.txt").write_text("secret")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=told):
        sql.query(filled, text)
    assert sorted(tmp_path.iterdir()) == before
    assert len(filled.cases()) == 2


def test_without_duckdb_the_error_says_what_to_install(filled: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ct-label-factory\[sql\]'"):
        sql.query(filled, "SELECT 1")
