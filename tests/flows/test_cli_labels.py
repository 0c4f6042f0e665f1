"""`ctfactory labels` and `ctfactory review` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catalog_rows import make_case_row, make_label_row
from typer.testing import CliRunner

from catalog.tables import Tables
from flows.cli import app


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    tables = Tables(tmp_path / "lake")
    row = make_case_row("ward", "1", role="external", fold=None)
    made = {"flow_run_id": "flow-1", "model_name": "universal", "model_version": "1", "review_state": "pending"}
    labels = [
        make_label_row(row, name, "pseudo-v1", **made, decision=decision, expected_dsc=dsc, reason="why not")
        for name, decision, dsc in (("liver", "review", 0.6), ("spleen", "reject", 0.1), ("aorta", "accept", 0.9))
    ]
    tables.commit_case(row, [*labels, make_label_row(row, "pancreas")])

    def command(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*words, "-w", str(tmp_path)], env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output
        return json.loads(result.output) if "--json" in words else result.output

    return command


def test_the_queue_is_a_table_and_json(run: Any) -> None:
    page = run("review", "list")
    assert "liver" in page
    assert "why not" in page
    assert "spleen" not in page
    (row,) = run("review", "list", "--json")
    # the aorta reaches 0.9, but of the liver none is accepted: 1 - 0.6, weight sqrt((1 + 1) / (1 + 0))
    assert row["gain"] == pytest.approx(0.4 * 2**0.5)
    assert [row["class_name"] for row in run("review", "list", "--decision", "reject,accept", "--json")] == [
        "spleen",
        "aorta",
    ]
    assert run("review", "list", "--cohort", "kits") == "nothing waits\n"


def test_verdicts_are_told_and_given_once(run: Any) -> None:
    words = ("review", "accept", "ward/1", "--class", "liver,spleen", "--why", "seen", "--who", "me")
    told = run(*words)
    assert "ward/1: liver of pseudo-v1 accepted" in told
    assert run(*words) == "2 accepted already\n"
    assert run("review", "list") == "nothing waits\n"
    assert "aorta of pseudo-v1 rejected" in run("review", "reject", "ward/1", "--class", "aorta", "--why", "hole")
    history = run("catalog", "history", "ward/1")
    assert "2 accepted, 1 rejected" in history


def test_a_run_is_retracted_and_restored(run: Any) -> None:
    assert run("labels", "retract", "flow-1", "--why", "wrong model") == "flow-1: 3 labels of 1 cases retracted\n"
    assert "retracted" in run("catalog", "show", "ward/1")
    found = run("labels", "restore", "flow-1", "--json")
    assert found == {
        "run": "flow-1",
        "restored": 3,
        "cases": 1,
        "classes": {"aorta": 1, "liver": 1, "spleen": 1},
    }


def test_what_cannot_be_done_says_why(run: Any, tmp_path: Path) -> None:
    for words, message in (
        (("labels", "retract", "models:/universal@champion"), "an alias means another version tomorrow"),
        (("labels", "retract", "nobody"), "made no pseudo-label of this lake"),
        (("review", "accept", "ward/1", "--class", "pancreas", "--why", "x"), "no pseudo-label of pancreas"),
        (("review", "import", "ward/1", str(tmp_path / "no.nii"), "--class", "liver", "--why", "x"), "no such file"),
    ):
        result = CliRunner().invoke(app, [*words, "-w", str(tmp_path)])
        assert result.exit_code == 1
        assert message in str(result.exception)
