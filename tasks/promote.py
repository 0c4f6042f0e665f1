"""Promotion: the decision about a judged version, the move of the alias `champion` and its row of the audit."""

from __future__ import annotations

import json
from dataclasses import dataclass

import mlflow
import pandas as pd

from tasks.champion import Mover, move_champion, note, settle
from tasks.gates import Gate, gate_table
from tasks.judgement import Judgement, judge_version, stopped_gate
from tasks.prefect_task import as_task
from tasks.registry import ModelVersion, WeightsChanged, fetch_checkpoint
from tasks.settings import Settings
from tasks.tracking import tracked_run

KIND = "promote"


@dataclass(frozen=True)
class Promotion:
    """The decision about one version, the gates it rests on, and the MLflow run that keeps their table."""

    model: ModelVersion
    promoted: bool
    gates: tuple[Gate, ...]
    reason: str
    run_id: str | None = None

    def table(self) -> pd.DataFrame:
        """Return one row a gate."""
        return gate_table(self.gates)


def promote_judged(judgement: Judgement, settings: Settings, mover: Mover) -> Promotion:
    """Make the version champion if it passed every gate, and write down what was decided; see `promote_version`."""
    model, standing = judgement.model, judgement.standing
    run_id = _log(judgement, settings, mover)
    rows = [gate.row() for gate in judgement.gates]
    if not judgement.passed:
        note(model, "refused", mover, settings, gates=rows, evaluation_run_id=judgement.evaluation_run_id)
        return Promotion(model, False, judgement.gates, judgement.reason, run_id)
    if standing.champion is not None and standing.champion.version == model.version:
        return Promotion(model, True, judgement.gates, f"version {model.version} is the champion already", run_id)
    try:
        # Between the gates and the move the files may have been exchanged.
        fetch_checkpoint(model, settings)
    except (WeightsChanged, OSError) as problem:
        return Promotion(
            model, False, (*judgement.gates, stopped_gate("weights", problem)), f"refused: {problem}", run_id
        )
    moved = move_champion(
        model,
        standing,
        "promoted",
        mover,
        settings,
        gates=rows,
        evaluation_run_id=judgement.evaluation_run_id,
    )
    if not moved:
        now = settle(settings).champion
        lost = Gate(
            "nobody else moved the champion",
            "nobody" if now is None else now.uri,
            "nobody" if standing.champion is None else standing.champion.uri,
            False,
            "another promotion came first; run `ctfactory promote` again to be judged against its champion",
        )
        note(model, "refused", mover, settings, gates=[*rows, lost.row()])
        return Promotion(model, False, (*judgement.gates, lost), f"refused: {lost}", run_id)
    before = f", before it version {standing.champion.version}" if standing.champion else ""
    return Promotion(model, True, judgement.gates, f"version {model.version} is the champion{before}", run_id)


def promote_version(
    model: ModelVersion, settings: Settings, mover: Mover | None = None, *, target: str | None = None
) -> Promotion:
    """Move the alias `champion` to `model` when every gate is passed; otherwise refuse and say which gate failed.

    The champion before it becomes `previous`. Of two promotions at once one wins, the other is refused. Every decision
    is a row of the table `promotions` and an MLflow run of kind `promote` with the table of gates.
    """
    return promote_judged(judge_version(model, settings, target=target), settings, mover or Mover("unknown", "asked"))


def roll_back(settings: Settings, mover: Mover) -> Promotion:
    """Make `previous` the champion again, and the present champion `previous`.

    Raises LookupError where nothing was champion before, WeightsChanged where its weights are not what was registered.
    """
    standing = settle(settings)
    if standing.previous is None or standing.champion is None:
        raise LookupError(
            "nothing to roll back to: no version has the alias `previous`; promote another version instead"
        )
    fetch_checkpoint(standing.previous, settings)
    if not move_champion(standing.previous, standing, "rolled_back", mover, settings):
        return Promotion(standing.previous, False, (), "refused: somebody else moved the champion just now; look again")
    reason = f"version {standing.previous.version} is the champion again, before it version {standing.champion.version}"
    return Promotion(standing.previous, True, (), reason)


def _log(judgement: Judgement, settings: Settings, mover: Mover) -> str:
    """Keep the table of gates as an MLflow run of its own, and return the run's id."""
    tags = {
        "model": judgement.model.uri,
        "flow_run_id": mover.flow_run_id,
        "evaluation_run_id": judgement.evaluation_run_id,
        "target": judgement.target,
        "verdict": "passed" if judgement.passed else "refused",
    }
    with tracked_run(settings, f"promote v{judgement.model.version}", kind=KIND, tags=tags) as run_id:
        mlflow.log_table(judgement.table(), "gates.json")
        mlflow.log_metrics({"gates": len(judgement.gates), "gates_failed": _failed(judgement)})
        mlflow.log_text(json.dumps({"who": mover.who, "why": mover.why, "reason": judgement.reason}), "decision.json")
    return run_id


def _failed(judgement: Judgement) -> int:
    return sum(not gate.passed for gate in judgement.gates)


promote_judged_task = as_task(promote_judged, "promote-judged")
roll_back_task = as_task(roll_back, "roll-back")
