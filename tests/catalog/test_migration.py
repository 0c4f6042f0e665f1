"""A lake of an older schema goes on; one of a newer schema is refused."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable

from catalog import queries, schema
from catalog.errors import CommitRefused
from catalog.migration import PROPERTY, stored_version
from catalog.tables import Tables

# made by older_lake.py
STORED = Path(__file__).parents[1] / "data" / "lake_schema_1.tar.gz"
READ_BY_R1 = {"cases": 1, "labels": 1, "quarantine": 0, "runs": 0}


@pytest.fixture
def older(tmp_path: Path) -> Tables:
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    return Tables(tmp_path)


def log_of(tables: Tables, name: str) -> DeltaTable:
    return DeltaTable(tables.location.folder / "tables" / name)


def test_an_older_lake_reads_with_nulls_where_columns_were_missing(older: Tables) -> None:
    before = {name: log_of(older, name).version() for name in ("cases", "labels", "quarantine", "runs")}
    cases = older.cases()
    assert cases[["case_id", "revision"]].values.tolist() == [["kits/case_1", 2], ["ward/case_9", 1]]
    assert cases["withdrawn"].isna().all()
    labels = older.labels(history=True)
    assert labels["class_name"].tolist() == ["spleen", "liver", "liver"]
    assert labels["revision"].tolist() == [1, 1, 1]  # it had none: the first
    assert labels["hu_mean"].isna().all()
    assert older.quarantined()["retry"].isna().tolist() == [True]
    assert older.has("kits/case_1", "2" * 64)
    assert queries.coverage(older).loc["liver", "kits"] == 1
    assert {name: log_of(older, name).version() for name in before} == before  # looking changes nothing


def test_an_older_lake_takes_new_rows_and_keeps_its_versions(older: Tables, case_row: Any, label_row: Any) -> None:
    row = case_row("lits", "case_3", fingerprint="AQ==")
    assert older.commit_case(row, [label_row(row, "liver", hu_mean=42.0)])
    refused = dict.fromkeys(("native_id", "code", "where", "found", "expected", "remedy", "retry"), "y")
    assert older.quarantine([{"dataset": "kits", **refused}]) == 1
    again = Tables(older.location)
    assert again.cases()["case_id"].tolist() == ["kits/case_1", "lits/case_3", "ward/case_9"]
    assert again.labels()["hu_mean"].isna().tolist() == [True, False]
    assert again.compact()["labels"] == 3
    assert again.labels(history=True)["revision"].tolist() == [1, 1, 1, 1]
    assert again.fingerprints({"kits/case_1": 2, "lits/case_3": 1}) == {"lits/case_3": "AQ=="}
    versions = queries.run_snapshot(again, "r1")
    assert versions == READ_BY_R1
    assert again.cases(at_versions=versions)["ingest_key"].tolist() == ["1" * 64]
    assert again.labels(at_versions=versions)["class_name"].tolist() == ["spleen", "liver"]


def test_rows_of_an_older_lake_are_neither_doubled_nor_edited(older: Tables, label_row: Any, case_row: Any) -> None:
    known = case_row("kits", "case_1", ingest_key="2" * 64)
    liver = label_row(known, "liver", "shipped", state="annotated")
    assert not older.commit_case(known, [liver])
    refused = dict.fromkeys(("where", "found", "expected", "remedy"), "z")
    assert older.quarantine([{"dataset": "kits", "native_id": "case_7", "code": "crc", **refused}]) == 0
    assert older.commit_labels([{**liver, "manifest": '{"files":{"x":[1,"00"]}}'}]) == 1
    assert older.labels("kits")[["revision", "manifest"]].values.tolist() == [[2, '{"files":{"x":[1,"00"]}}']]
    with pytest.raises(CommitRefused, match="other classes"):
        older.commit_labels([label_row(known, "colon", "shipped")])


def test_a_lake_is_brought_forward_once(older: Tables) -> None:
    assert stored_version(log_of(older, "cases")) == 2  # not written down before 3
    added = older.migrate()
    assert added["cases"] == ["fingerprint", "withdrawn", "withdrawn_at"]
    judged = ["scores", "expected_dsc", "decision", "reason", "cleaning", "independent", "licence", "non_commercial"]
    assert added["labels"] == ["hu_mean", *judged, "revision"]
    assert added["quarantine"] == ["retry"]
    assert added["runs"] == ["evidence"]
    assert added["twins"] == []
    assert stored_version(log_of(older, "cases")) == schema.SCHEMA_VERSION
    assert [field.name for field in log_of(older, "labels").schema().fields][-10:] == added["labels"]
    versions = older.versions()
    assert not any(older.migrate().values())
    assert older.versions() == versions
    assert len(older.cases()) == 2


def test_a_migration_that_was_killed_half_way_is_completed(older: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr("deltalake.table.TableAlterer.set_table_properties", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            older.migrate()
    assert stored_version(log_of(older, "cases")) == 2
    again = Tables(older.location)
    assert again.migrate()["cases"] == []
    assert stored_version(log_of(older, "cases")) == schema.SCHEMA_VERSION


def _interrupt(*_args: Any, **_options: Any) -> None:
    raise KeyboardInterrupt


def test_a_lake_of_a_newer_schema_is_refused(tables: Tables, case_row: Any) -> None:
    tables.commit_case(case_row("kits", "case_1"))
    newer = schema.SCHEMA_VERSION + 1
    log_of(tables, "cases").alter.set_table_properties({PROPERTY: str(newer)}, raise_if_not_exists=False)
    expected = rf"found schema version {newer}, expected at most {schema.SCHEMA_VERSION}, .*; update ct-label-factory"
    for look in (tables.cases, Tables(tables.location).cases, lambda: tables.commit_case(case_row("kits", "b"))):
        with pytest.raises(ValueError, match=expected):
            look()


def test_a_new_lake_says_its_version(tables: Tables) -> None:
    tables.versions()
    assert {stored_version(log_of(tables, name)) for name in schema.TABLES} == {schema.SCHEMA_VERSION}
    assert pd.Series(tables.migrate()).map(len).sum() == 0
