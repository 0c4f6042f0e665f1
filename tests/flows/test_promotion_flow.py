"""Promotion as a flow on a real Prefect server: a person's answer, exit codes, what is printed."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from promotion_line import GATES, HELD_OUT, evaluated, made_up_scores, make_line, passing, register
from typer.testing import CliRunner

from flows.approval import answer
from flows.cli import app
from flows.cli_options import EXIT_NOT_PROMOTED
from flows.local_server import prefect_api
from flows.promote import promote, rollback
from tasks.champion import moves
from tasks.promote import Promotion
from tasks.registry import CHAMPION, ModelVersion, alias_version, set_alias
from tasks.settings import Settings, with_values
from tasks.workspace import open_workspace


@dataclass(frozen=True)
class Line:
    settings: Settings
    first: ModelVersion
    second: ModelVersion
    poor: ModelVersion


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("promotion_flow")
    settings = make_line(folder)
    first, second, poor = passing(settings), passing(settings, seed=1), register(settings, seed=2)
    evaluated(settings, poor, made_up_scores(HELD_OUT, 0.3))
    (folder / "asks.yaml").write_text(GATES + "approval: true\napproval_hours: 1\n")
    with prefect_api(settings) as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_API_URL", url)  # for the commands
        yield Line(settings, first, second, poor)


def asking(line: Line) -> Settings:
    return with_values(line.settings, gates=str(line.settings.workspace.parent / "asks.yaml"))


def promoted_with(line: Line, *, approve: bool, why: str) -> Promotion:
    """Promote the second version under rules that ask a person, and answer as that person."""
    results: list[Promotion] = []
    before = len(moves(line.settings))
    # A thread has a context of its own, and Prefect keeps the address of its server there.
    run = contextvars.copy_context().run
    flow = threading.Thread(target=run, args=(lambda: results.append(promote(line.second.uri, asking(line))),))
    flow.start()
    waiting, champion = _flow_run_that_asks(line.settings, before), alias_version(CHAMPION, line.settings)
    assert champion is not None
    assert champion.version == line.first.version  # nothing moves while nobody has answered
    answer(waiting, approve=approve, who="Dr Example", why=why)
    flow.join(timeout=120)
    return results[0]


def _flow_run_that_asks(settings: Settings, before: int) -> UUID:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        asked = moves(settings).iloc[before:]
        if (asked["move"] == "asked").any():
            run_id = UUID(asked[asked["move"] == "asked"].iloc[-1]["flow_run_id"])
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(run_id).state
            if state is not None and state.is_paused():
                return run_id
        time.sleep(0.5)
    raise TimeoutError("no promotion asked for an answer")


def test_a_person_declines_and_later_approves(line: Line) -> None:
    set_alias(line.first, CHAMPION, line.settings)
    declined = promoted_with(line, approve=False, why="the spleen leaks")
    assert not declined.promoted
    assert "Dr Example declined: the spleen leaks" in declined.reason
    champion = alias_version(CHAMPION, line.settings)
    assert champion is not None
    assert champion.version == line.first.version
    approved = promoted_with(line, approve=True, why="looked at twenty cases")
    assert approved.promoted
    champion = alias_version(CHAMPION, line.settings)
    assert champion is not None
    assert champion.version == line.second.version
    told = moves(line.settings)[["move", "who", "why"]].to_numpy().tolist()
    assert ["declined", "Dr Example", "the spleen leaks"] in told
    assert ["approved", "Dr Example", "looked at twenty cases"] in told
    assert told[-1][0] == "promoted"
    runs = open_workspace(line.settings).tables.runs(kind="promote")
    assert json.loads(runs.iloc[-1]["counts"])["promoted"] == 1


def test_a_flow_run_that_does_not_wait_takes_no_answer(line: Line) -> None:
    with pytest.raises(LookupError, match="not known to"):
        answer(UUID(int=1), approve=True, who="x", why="y")
    decision = promote(line.poor.uri, line.settings)
    run_id = UUID(moves(line.settings).iloc[-1]["flow_run_id"])
    assert not decision.promoted
    with pytest.raises(ValueError, match="it is Completed, expected Paused"):
        answer(run_id, approve=True, who="x", why="y")


def test_a_rollback_is_one_step(line: Line) -> None:
    set_alias(line.second, CHAMPION, line.settings)
    set_alias(line.first, "previous", line.settings)
    assert rollback(line.settings, who="tester", why="too many false lesions").model.version == line.first.version
    last = moves(line.settings).iloc[-1]
    assert (last["move"], last["why"]) == ("rolled_back", "too many false lesions")


@pytest.mark.parametrize(("version", "code"), [("first", 0), ("poor", EXIT_NOT_PROMOTED)])
def test_the_command_says_every_gate_and_exits_4_on_a_refusal(line: Line, version: str, code: int) -> None:
    uri, work = getattr(line, version).uri, ["-w", str(line.settings.workspace)]
    environment = {"CTFACTORY_GATES": line.settings.gates}
    before = len(moves(line.settings))
    result = CliRunner().invoke(app, ["promote", uri, "--dry-run", "--json", *work], env=environment)
    assert result.exit_code == code, result.output
    told = json.loads(result.stdout)
    assert {"gate", "value", "bar", "verdict", "remark"} == set(told["gates"][0])
    assert ("REFUSED" in {gate["verdict"] for gate in told["gates"]}) == (code != 0)
    assert len(moves(line.settings)) == before
    listed = CliRunner().invoke(app, ["promotions", "--json", *work], env=environment)
    assert len(json.loads(listed.stdout)) == before


def test_a_wrong_target_or_file_of_gates_is_told_before_anything_starts(line: Line, tmp_path: Path) -> None:
    work = ["-w", str(tmp_path / "nothing")]
    wrong_target = CliRunner().invoke(app, ["promote", "--target", "comercial", *work])
    assert "target 'comercial': nearest: commercial" in str(wrong_target.exception)
    wrong_file = CliRunner().invoke(app, ["promote", "--gates", "none.yaml", *work])
    assert "gates 'none.yaml': no such file" in str(wrong_file.exception)
    assert not (tmp_path / "nothing").exists()
