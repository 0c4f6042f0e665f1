"""The flows `promote` and `rollback`: gates are evaluated, a person may be asked, the alias `champion` moves or not."""

from __future__ import annotations

import getpass
from dataclasses import replace

from mlflow.exceptions import MlflowException
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.approval import Approval, wait_for_approval
from flows.run_record import RunRecord, recorded_run
from tasks.champion import Mover, note
from tasks.gate_rules import load_gates
from tasks.judgement import Judgement, judge_version_task
from tasks.model_card import refresh_model_card_task
from tasks.notices import tell
from tasks.promote import Promotion, promote_judged_task, roll_back_task
from tasks.registry import ModelVersion, alias_version, model_version
from tasks.report import markdown_table
from tasks.settings import Settings


@flow(name="promote", validate_parameters=False)
def promote(
    model: str = "challenger",
    settings: Settings | None = None,
    target: str | None = None,
    dry_run: bool = False,
    who: str | None = None,
    why: str = "passed every gate",
) -> Promotion:
    """Make `model` the champion if it passes every gate of the settings' rules.

    Afterwards the alias `champion` names it and `previous` the one before, or nothing has changed and the result says
    why; either way the table `promotions` has a row and MLflow a run with every gate. Where the rules ask for an
    approval the flow pauses until a person answers. Promoting the champion again does nothing.
    target: what the model is for, of the rules. dry_run: only judge; nothing is written down.
    """
    settings = settings or Settings()
    version = model_version(model, settings)
    if dry_run:
        judged = judge_version_task(version, settings, target=target)
        _show(judged, judged.reason)
        return Promotion(version, False, judged.gates, f"dry run, nothing was moved: {judged.reason}")
    with recorded_run("promote", settings, {"model": version.uri}) as record:
        mover = _mover(who, why, settings, record)
        judged = judge_version_task(version, settings, target=target)
        refusal = _ask(judged, settings, mover)
        decision = refusal or promote_judged_task(judged, settings, mover)
        _count(record, decision)
        _show(judged, decision.reason)
        if decision.promoted:
            _refresh_card(version, settings)
        return decision


@flow(name="rollback", validate_parameters=False)
def rollback(settings: Settings | None = None, who: str | None = None, why: str = "asked for") -> Promotion:
    """Make the version that was champion before the champion again; the two change places.

    Afterwards the aliases `champion` and `previous` have changed places and the table `promotions` has a row that says
    who wanted it and why. A second run changes them back.
    """
    settings = settings or Settings()
    with recorded_run("rollback", settings, {"model": settings.model_name}) as record:
        decision = roll_back_task(settings, _mover(who, why, settings, record))
        _count(record, decision)
        create_markdown_artifact(f"# {decision.model.uri}\n\n{decision.reason}", key="rollback")
        return decision


def _refresh_card(version: ModelVersion, settings: Settings) -> None:
    """Write the card anew; the champion has moved already, so a card that cannot be written is only told."""
    try:
        refresh_model_card_task(version, settings)
    except (MlflowException, LookupError, OSError, ValueError) as problem:
        tell(f"{version.uri}: its card was not written ({problem}); `ctfactory models card {version.version}` does")


def _ask(judged: Judgement, settings: Settings, mover: Mover) -> Promotion | None:
    """Ask a person where the rules want one and the gates are passed; return the refusal, None to go on."""
    rules, champion = load_gates(settings.gates), alias_version("champion", settings)
    moves_nothing = champion is not None and champion.version == judged.model.version
    if not rules.approval or not judged.passed or moves_nothing:
        return None
    note(judged.model, "asked", mover, settings, gates=[gate.row() for gate in judged.gates])
    _show(judged, "every gate is passed; waits for a person: `ctfactory approve FLOW_RUN`, or Resume on the run's page")
    answer: Approval | None = wait_for_approval(f"promote-{judged.model.version}", rules.approval_hours)
    if answer is None:
        reason = f"nobody answered within {rules.approval_hours:g} hours"
        note(judged.model, "declined", replace(mover, why=reason), settings)
        return Promotion(judged.model, False, judged.gates, f"refused: {reason}")
    event = "approved" if answer.approve else "declined"
    note(judged.model, event, replace(mover, who=answer.who, why=answer.why), settings)
    if answer.approve:
        return None
    return Promotion(judged.model, False, judged.gates, f"refused: {answer.who} declined: {answer.why}")


def _mover(who: str | None, why: str, settings: Settings, record: RunRecord) -> Mover:
    return Mover(who or settings.operator or getpass.getuser(), why, record.flow_run_id)


def _count(record: RunRecord, decision: Promotion) -> None:
    record.model_version, record.mlflow_run_id = str(decision.model.version), decision.run_id
    record.counts = {
        "gates": len(decision.gates),
        "failed_gates": sum(not gate.passed for gate in decision.gates),
        "promoted": int(decision.promoted),
    }


def _show(judged: Judgement, reason: str) -> None:
    """Show every gate on the run's page."""
    create_markdown_artifact(f"# {judged.model.uri}\n\n{reason}\n\n{markdown_table(judged.table())}", key="promote")
