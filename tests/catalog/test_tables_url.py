"""Tables in an object store: the same answers as in a folder, and plain words where the store is not there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from catalog.location import Location
from catalog.tables import Tables


def test_tables_in_a_bucket_answer_like_those_in_a_folder(
    s3_root: str, tmp_path: Path, case_row: Any, label_row: Any
) -> None:
    row, other = case_row("kits", "case_1"), case_row("kits", "case_1", ingest_key="another")
    answers = []
    for root in (s3_root, tmp_path):
        tables = Tables(root)
        assert not tables.exist()
        assert tables.commit_case(row, [label_row(row, "liver"), label_row(row, "spleen")])
        assert tables.exist()
        earlier = tables.versions()
        assert not Tables(root).commit_case(row, [label_row(row, "liver"), label_row(row, "spleen")])
        assert tables.commit_case(other, [label_row(other, "colon")])
        assert tables.compact()["labels"] == 2
        again = pickle.loads(pickle.dumps(Tables(Location.of(root))))
        assert again.cases(at_versions=earlier)["ingest_key"].tolist() == [row["ingest_key"]]
        done = [entry["operation"] for entry in again.commits("cases")]
        assert done == ["OPTIMIZE", "SET TBLPROPERTIES", "WRITE", "WRITE", "CREATE TABLE"]
        answers.append(again.labels(history=True).drop(columns="committed_at"))
    assert answers[0]["class_name"].tolist() == ["spleen", "liver", "colon"]
    pd.testing.assert_frame_equal(*answers)


def test_a_store_that_cannot_be_opened_is_named(s3_root: str) -> None:
    with pytest.raises(OSError, match=r"table s3://no-such-bucket/lake/tables/cases: .*404.*; check that the bucket"):
        Tables("s3://no-such-bucket/lake").cases()


def test_a_url_that_would_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found 's3://bucket/lake#1', expected a path without % or # or \?"):
        Tables("s3://bucket/lake#1")
