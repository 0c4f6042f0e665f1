"""Answers worked out by hand on four cases."""

from __future__ import annotations

from typing import Any

import pytest

from catalog import queries
from catalog.tables import Tables


@pytest.fixture
def filled(tables: Tables, case_row: Any, label_row: Any) -> Tables:
    # kits/a: liver and kidney tumour annotated; kits/b: liver annotated and also pseudo-labelled, twice;
    # lits/c: liver looked for and absent; ward/d: pseudo only.
    a, b, c = case_row("kits", "a"), case_row("kits", "b"), case_row("lits", "c")
    d = case_row("ward", "d", role="external", fold=None)
    tables.commit_case(a, [label_row(a, "liver", ml=1500.0), label_row(a, "kidney_tumor")])
    tables.commit_case(b, [label_row(b, "liver", ml=1000.0)])
    tables.commit_case(c, [label_row(c, "liver", voxels=0, ml=0.0)])
    tables.commit_case(d)
    for row, name, version, score, ml in [
        (b, "pseudo-v1-aa", "1", 0.4, 900.0),
        (d, "pseudo-v1-aa", "1", 0.3, 800.0),
        (d, "pseudo-v2-bb", "2", 0.9, 850.0),
    ]:
        values = {"model_name": "universal", "model_version": version, "quality_score": score, "ml": ml}
        tables.commit_labels([label_row(row, "liver", name, **values)])
    tables.quarantine(
        [
            {
                "dataset": "kits",
                "native_id": n,
                "code": "crc",
                "where": "w",
                "found": "f",
                "expected": "e",
                "remedy": "r",
            }
            for n in ("x", "y")
        ]
    )
    return tables


def test_status_counts(filled: Tables) -> None:
    state = queries.status(filled)
    assert state["cases"] == {"kits": 2, "lits": 1, "ward": 1}
    assert state["labels"] == {"kidney_tumor": {"annotated": 1}, "liver": {"annotated": 3, "pseudo": 3}}
    assert state["quarantine"] == {"kits": {"crc": 2}}
    assert state["versions"]["cases"] == 4


def test_coverage_is_a_matrix_of_all_classes_and_data_sets(filled: Tables) -> None:
    cases = queries.coverage(filled)
    assert cases.shape == (32, 3)
    assert list(cases.loc["liver"]) == [2, 1, 1]
    assert list(cases.loc["spleen"]) == [0, 0, 0]
    assert list(queries.coverage(filled, "present").loc["liver"]) == [2, 0, 1]
    assert list(queries.coverage(filled, "ml").loc["liver"]) == [2500.0, 0.0, 850.0]
    assert list(queries.coverage(filled, "ml", state="pseudo").loc["liver"]) == [900.0, 0.0, 850.0]
    with pytest.raises(ValueError, match="expected cases, present, voxels or ml"):
        queries.coverage(filled, "litres")


def test_human_labels_win_and_then_the_newest(filled: Tables) -> None:
    rows = queries.effective_labels(filled).set_index(["case_id", "class_name"])
    assert rows.loc[("kits/b", "liver"), "state"] == "annotated"
    assert rows.loc[("ward/d", "liver"), "annotation"] == "pseudo-v2-bb"
    assert len(rows) == 5


def test_questions_by_class_model_and_score(filled: Tables) -> None:
    assert queries.labelled_cases(filled, "liver")["case_id"].tolist() == ["kits/a", "kits/b", "lits/c"]
    assert queries.labelled_cases(filled, "liver", present=False)["case_id"].tolist() == ["lits/c"]
    assert queries.labelled_cases(filled, "pancreas_tumor").empty
    assert queries.made_by(filled, "1")["case_id"].tolist() == ["kits/b", "ward/d"]
    assert queries.made_by(filled, "1", "another").empty
    assert queries.low_quality(filled, "liver", 0.5)["quality_score"].tolist() == [0.3, 0.4]


def test_empty_tables_have_answers_too(tables: Tables) -> None:
    assert queries.status(tables)["cases"] == {}
    assert queries.coverage(tables).shape == (32, 0)
