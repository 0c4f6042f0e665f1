"""A withdrawn case is out of use and stays so; what used it can still be explained."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from catalog import queries
from catalog.reports import case_history, describe_case
from catalog.tables import Tables


@pytest.fixture
def two(tables: Tables, case_row: Any, label_row: Any) -> Tables:
    for native_id in ("a", "b"):
        row = case_row("kits", native_id, split_group="g", fold=3 if native_id == "a" else 1, fingerprint="AQ==")
        tables.commit_case(row, [label_row(row, "liver")])
    return tables


def test_a_withdrawn_case_shows_nowhere_and_earlier_versions_still_have_it(two: Tables) -> None:
    earlier = two.versions()
    assert two.withdraw(["kits/a"], "consent withdrawn") == ["kits/a"]
    assert two.cases()["case_id"].tolist() == ["kits/b"]
    assert two.labels()["case_id"].tolist() == ["kits/b"]
    assert queries.coverage(two).loc["liver", "kits"] == 1
    assert two.group_members("g") == ["kits/b"]
    assert two.cases()["fold"].tolist() == [3]  # the group keeps the fold it had
    assert two.withdrawn() == {"kits/a": "consent withdrawn"}
    assert len(two.cases(at_versions=earlier)) == len(two.labels(at_versions=earlier)) == 2
    row = two.cases(case_ids=["kits/a"], history=True).iloc[-1]
    assert (row["revision"], row["withdrawn"], row["withdrawn_at"].year) == (2, "consent withdrawn", 2026)
    assert describe_case(two, "kits/a").case["withdrawn"] == "consent withdrawn"


def test_withdrawing_and_restoring_can_be_repeated(two: Tables) -> None:
    before = two.cases().drop(columns=["revision", "committed_at"])
    assert two.withdraw(["kits/a", "kits/b"], "faulty") == ["kits/a", "kits/b"]
    seen = two.versions()
    assert two.withdraw(["kits/a"], "another reason") == []
    assert two.versions() == seen
    assert two.restore(["kits/a", "kits/b"]) == ["kits/a", "kits/b"]
    assert two.restore(["kits/a"]) == []
    assert two.withdrawn() == {}
    assert two.cases().drop(columns=["revision", "committed_at"]).equals(before)
    assert two.fingerprints({"kits/a": 3}) == {"kits/a": "AQ=="}
    assert len(two.labels()) == 2
    assert [row["changed"] for row in case_history(two, "kits/a").versions] == [[], ["withdrawal"], ["withdrawal"]]


def test_no_commit_brings_a_withdrawn_case_back(two: Tables, case_row: Any, label_row: Any) -> None:
    two.withdraw(["kits/a"], "faulty")
    row = case_row("kits", "a", ingest_key="another")
    assert not two.commit_case(row, [label_row(row, "liver")])
    assert two.withdrawn(["kits/a", "kits/b"]) == {"kits/a": "faulty"}
    two.restore(["kits/a"])
    assert two.commit_case(row, [label_row(row, "liver")])
    assert two.cases(case_ids=["kits/a"])["ingest_key"].tolist() == ["another"]


def test_an_unknown_case_or_no_reason_changes_nothing(two: Tables) -> None:
    with pytest.raises(KeyError, match="unknown cases kits/x"):
        two.withdraw(["kits/a", "kits/x"], "faulty")
    with pytest.raises(ValueError, match="no reason"):
        two.withdraw(["kits/a"], " ")
    assert len(two.cases()) == 2


def test_a_case_withdrawn_and_ingested_at_once_is_withdrawn_in_the_end(two: Tables, case_row: Any) -> None:
    rows = [case_row("kits", "a", ingest_key=f"key {number}") for number in range(6)]

    def work(number: int) -> None:
        tables = Tables(two.location)
        if number == 3:
            tables.withdraw(["kits/a"], "faulty")
        else:
            tables.commit_case(rows[number])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert two.withdrawn() == {"kits/a": "faulty"}
    history = two.cases(case_ids=["kits/a"], history=True)
    assert history["revision"].tolist() == list(range(1, len(history) + 1))
    assert history["withdrawn"].notna().tolist() == [False] * (len(history) - 1) + [True]
