"""Retractions, verdicts and precedence, worked out by hand on a few labels."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from catalog import queries
from catalog.current import current_rows
from catalog.garbage import collect_garbage
from catalog.label_decisions import judge, restore, retract
from catalog.lake import Lake
from catalog.reports import case_history, describe_case
from catalog.review_queue import review_queue
from catalog.tables import Tables

WHO = {"who": "a reader", "why": "looked at it"}


@pytest.fixture
def pseudo(tables: Tables, label_row: Any) -> Callable[..., None]:
    """Commit pseudo-labels of some classes of a case, by version 1 in flow run `flow-1` unless said otherwise."""

    def commit(case: dict[str, Any], classes: tuple[str, ...], version: int = 1, **changes: Any) -> None:
        made = {"model_name": "universal", "model_version": str(version), "review_state": "pending"}
        made |= {"flow_run_id": f"flow-{version}", "mlflow_run_id": f"train-{version}", "decision": "review"}
        tables.commit_labels([label_row(case, name, f"pseudo-v{version}", **made | changes) for name in classes])

    return commit


@pytest.fixture
def case(tables: Tables, case_row: Any, label_row: Any) -> dict[str, Any]:
    # kits/a: the liver is annotated, nothing else
    row: dict[str, Any] = case_row("kits", "a")
    tables.commit_case(row, [label_row(row, "liver", flow_run_id="ingest-1")])
    return row


def _effective(tables: Tables, **options: Any) -> dict[str, str]:
    rows = queries.effective_labels(tables, **options)
    return dict(zip(rows["class_name"], rows["annotation"], strict=True))


def test_a_reviewed_label_goes_before_newer_pseudo_labels_and_behind_human_ones(
    tables: Tables, case: Any, pseudo: Any
) -> None:
    pseudo(case, ("liver", "spleen"))
    judge(tables, "kits/a", ["liver", "spleen"], "accepted", **WHO)
    pseudo(case, ("liver", "spleen", "aorta"), 2)
    assert _effective(tables) == {"liver": "human", "spleen": "pseudo-v1", "aorta": "pseudo-v2"}
    pseudo(case, ("aorta",), 3, review_state="reviewed", label_origin="human", decision=None)
    pseudo(case, ("aorta",), 4)
    assert _effective(tables)["aorta"] == "pseudo-v3"


def test_a_rejected_label_gives_way_to_the_next_and_counts_nowhere(tables: Tables, case: Any, pseudo: Any) -> None:
    pseudo(case, ("spleen",))
    pseudo(case, ("spleen", "aorta"), 2)
    judge(tables, "kits/a", ["spleen", "aorta"], "rejected", **WHO)
    assert _effective(tables) == {"liver": "human", "spleen": "pseudo-v1"}
    assert queries.coverage(tables).loc[["spleen", "aorta"], "kits"].tolist() == [1, 0]
    assert queries.labelled_cases(tables, "aorta", "pseudo").empty
    # a reviewer may think again
    judge(tables, "kits/a", ["aorta"], "accepted", **WHO)
    assert _effective(tables)["aorta"] == "pseudo-v2"


def test_what_the_factory_rejects_counts_when_a_reviewer_accepts_it(tables: Tables, case: Any, pseudo: Any) -> None:
    pseudo(case, ("spleen",), decision="reject")
    assert _effective(tables) == {"liver": "human"}
    judge(tables, "kits/a", ["spleen"], "accepted", **WHO)
    assert _effective(tables)["spleen"] == "pseudo-v1"


@pytest.mark.parametrize("run", ["flow-1", "train-1", "models:/universal/1", "run-1"])
def test_a_run_is_retracted_by_any_of_its_names_and_comes_back(
    tables: Tables, case: Any, pseudo: Any, run: str
) -> None:
    pseudo(case, ("spleen", "aorta"))
    pseudo(case, ("aorta",), 2)
    run_row = {"run_id": "run-1", "kind": "pseudo-label", "flow_run_id": "flow-1", "started": tables._now()}
    tables.record_run({**run_row, "outcome": "done", "counts": "{}", "table_versions": "{}"})
    before = _effective(tables)
    gone = retract(tables, run, **WHO)
    assert gone["class_name"].tolist() == ["aorta", "spleen"]
    assert _effective(tables) == {"liver": "human", "aorta": "pseudo-v2"}
    assert queries.status(tables)["labels"]["aorta"] == {"pseudo": 1}
    assert queries.coverage(tables).loc["spleen", "kits"] == 0
    assert set(current_rows(tables, "labels", tables.versions())["annotation"].to_pylist()) == {"human", "pseudo-v2"}
    assert retract(tables, run, **WHO).empty
    assert len(restore(tables, run, **WHO)) == 2
    assert _effective(tables) == before
    assert restore(tables, run, **WHO).empty


def test_two_retractions_of_one_label_are_undone_one_by_one(tables: Tables, case: Any, pseudo: Any) -> None:
    pseudo(case, ("spleen",))
    retract(tables, "models:/universal/1", **WHO)
    retract(tables, "flow-1", **WHO)
    restore(tables, "flow-1", **WHO)
    assert "spleen" not in _effective(tables)
    restore(tables, "models:/universal/1", **WHO)
    assert "spleen" in _effective(tables)


def test_human_labels_are_beyond_retraction_and_review(tables: Tables, case: Any, pseudo: Any, label_row: Any) -> None:
    pseudo(case, ("spleen",))
    with pytest.raises(LookupError, match=r"ingest-1: made no pseudo-label of this lake.*flow-1"):
        retract(tables, "ingest-1", **WHO)
    with pytest.raises(KeyError, match="no pseudo-label of liver to review"):
        judge(tables, "kits/a", ["liver"], "rejected", **WHO)
    # nor does an event that somebody writes by hand reach them
    about = {"case_id": "kits/a", "ingest_key": case["ingest_key"], "class_name": "liver", "annotation": "human"}
    for number, event in enumerate(("retracted", "rejected")):
        tables.record_events([{**about, "event_id": str(number), "event": event, "who": "x", "why": "y"}])
    assert _effective(tables)["liver"] == "human"
    assert set(tables.labels()["class_name"]) == {"liver", "spleen"}


def test_an_alias_a_missing_reason_and_an_unknown_retraction_are_refused(
    tables: Tables, case: Any, pseudo: Any
) -> None:
    pseudo(case, ("spleen",))
    with pytest.raises(ValueError, match="expected models:/NAME/VERSION; an alias means another version tomorrow"):
        retract(tables, "models:/universal@champion", **WHO)
    with pytest.raises(ValueError, match="found no reason"):
        retract(tables, "flow-1", who="x", why=" ")
    with pytest.raises(ValueError, match="found no reason"):
        judge(tables, "kits/a", ["spleen"], "accepted", who="x", why="")
    retract(tables, "flow-1", **WHO)
    with pytest.raises(LookupError, match="'flow-2' was not retracted; retracted were flow-1"):
        restore(tables, "flow-2", **WHO)


def test_a_run_from_before_a_retraction_still_answers_as_then(tables: Tables, case: Any, pseudo: Any) -> None:
    pseudo(case, ("spleen",))
    then = tables.versions()
    before_events = {name: version for name, version in then.items() if name != "label_events"}
    retract(tables, "flow-1", **WHO)
    assert "spleen" not in _effective(tables)
    for versions in (then, before_events):
        assert _effective(tables, at_versions=versions)["spleen"] == "pseudo-v1"
        assert queries.coverage(tables, at_versions=versions).loc["spleen", "kits"] == 1
        assert len(tables.labels(at_versions=versions)) == 2


def test_a_retraction_holds_for_withdrawn_cases_and_older_versions_too(
    tables: Tables, case: Any, pseudo: Any, case_row: Any
) -> None:
    pseudo(case, ("spleen",))
    tables.withdraw(["kits/a"], "consent")
    assert len(retract(tables, "flow-1", **WHO)) == 1
    tables.restore(["kits/a"])
    assert _effective(tables) == {"liver": "human"}


def test_the_page_and_the_history_of_a_case_tell_what_was_decided(tables: Tables, case: Any, pseudo: Any) -> None:
    pseudo(case, ("spleen", "aorta"))
    pseudo(case, ("aorta",), 2)
    judge(tables, "kits/a", ["aorta"], "rejected", **WHO)
    retract(tables, "flow-1", who="boss", why="wrong spacing")
    report = describe_case(tables, "kits/a")
    told = {(row["class_name"], row["annotation"]): row for row in report.labels}
    assert told[("spleen", "pseudo-v1")]["retracted"] is True
    assert told[("aorta", "pseudo-v2")]["verdict"] == "rejected"
    assert [key for key, row in told.items() if row["counts"]] == [("liver", "human")]
    assert {"spleen", "aorta"} <= set(report.unlabelled)
    history = case_history(tables, "kits/a")
    counts = {row["annotation"]: (row["retracted"], row["rejected"]) for row in history.annotations}
    assert counts == {"human": (0, 0), "pseudo-v1": (2, 0), "pseudo-v2": (0, 1)}
    assert [(row["event"], row["who"]) for row in history.events] == [
        ("rejected", "a reader"),
        *[("retracted", "boss")] * 2,
    ]


def test_garbage_collection_keeps_retracted_annotations(
    lake: Lake, tables: Tables, ingested: Any, label: Any, label_row: Any
) -> None:
    row = ingested()
    bits = label(7)
    manifest = lake.write_annotation(row["path"], "pseudo-v1", bits).to_json()
    tables.commit_labels([label_row(row, "aorta", "pseudo-v1", manifest=manifest, flow_run_id="flow-1")])
    retract(tables, "flow-1", **WHO)
    assert collect_garbage(tables, lake, timedelta(0)) == []
    restore(tables, "flow-1", **WHO)
    back = tables.labels(annotation="pseudo-v1").iloc[0]
    np.testing.assert_array_equal(lake.open_bits(back, "pseudo-v1").read(), bits)


def test_learnt_from_are_accepted_labels_of_classes_that_nobody_annotated(
    tables: Tables, case: Any, pseudo: Any
) -> None:
    def learnt(trusted: str) -> dict[str, tuple[str, bool]]:
        rows = queries.labels_to_learn(tables, trusted)
        pairs = zip(rows["annotation"], rows["reviewed"], strict=True)
        return dict(zip(rows["class_name"], pairs, strict=True))

    pseudo(case, ("liver", "spleen", "aorta", "stomach", "pancreas"), decision="accept")
    pseudo(case, ("aorta", "duodenum"), 2)  # in doubt: the older, accepted one is learnt from
    judge(tables, "kits/a", ["stomach"], "rejected", **WHO)
    judge(tables, "kits/a", ["duodenum", "pancreas"], "accepted", **WHO)
    assert learnt("accepted") == {
        "spleen": ("pseudo-v1", False),
        "aorta": ("pseudo-v1", False),
        "pancreas": ("pseudo-v1", True),
        "duodenum": ("pseudo-v2", True),
    }
    assert learnt("reviewed") == {"pancreas": ("pseudo-v1", True), "duodenum": ("pseudo-v2", True)}
    retract(tables, "flow-1", **WHO)
    assert learnt("accepted") == {"duodenum": ("pseudo-v2", True)}
    with pytest.raises(ValueError, match="expected accepted or reviewed"):
        queries.labels_to_learn(tables, "all")


def test_the_queue_begins_with_the_largest_gain(tables: Tables, case: Any, case_row: Any, pseudo: Any) -> None:
    other = case_row("ward", "b", role="external", fold=None)
    third = case_row("ward", "c", role="external", fold=None)
    tables.commit_cases([(other, []), (third, [])])
    # three livers are accepted (one of them human), none of the others: the weight of these is sqrt(4 / 1) = 2
    for row in (other, third):
        pseudo(row, ("liver",), decision="accept", expected_dsc=0.9 if row is other else 0.8)
    fourth = case_row("ward", "d", role="external", fold=None)
    tables.commit_case(fourth)
    pseudo(fourth, ("liver", "spleen", "aorta"), 1, expected_dsc=0.6)
    pseudo(fourth, ("stomach",), 3, expected_dsc=None, quality_score=0.9, decision=None)
    pseudo(fourth, ("pancreas",), 4, decision="reject", expected_dsc=0.0)
    judge(tables, "ward/d", ["aorta"], "rejected", **WHO)
    queue = review_queue(tables)
    assert queue["class_name"].tolist() == ["spleen", "liver", "stomach"]
    # liver: achievable (0.9 + 0.8) / 2 = 0.85, weight sqrt(4 / 4); spleen: 1 - 0.6, twice; stomach: 1 - 0.9, twice
    np.testing.assert_allclose(queue["gain"], [0.8, 0.25, 0.2])
    assert queue["decision"].tolist() == ["review", "review", "none"]
    assert review_queue(tables, class_name="liver", dataset="ward")["case_id"].tolist() == ["ward/d"]
    assert review_queue(tables, decisions=("reject",))["class_name"].tolist() == ["pancreas"]
    assert review_queue(tables, dataset="kits").empty
    retract(tables, "flow-1", **WHO)
    assert review_queue(tables)["class_name"].tolist() == ["stomach"]
    with pytest.raises(ValueError, match="decision maybe, expected accept, review, reject, none"):
        review_queue(tables, decisions=("maybe",))


def test_an_empty_lake_has_an_empty_queue(tables: Tables) -> None:
    assert review_queue(tables).empty
    assert queries.labels_to_learn(tables, "accepted").empty
    assert queries.effective_labels(tables).empty
