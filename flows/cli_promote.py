"""`ctfactory promote`, `rollback`, `approve`, `promotions`: who is champion, who decided it, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from flows.cli_context import flow_context
from flows.cli_options import EXIT_NOT_PROMOTED, AsJson, Model, Workspace, settings_for

if TYPE_CHECKING:
    from tasks.promote import Promotion

Who = Annotated[str | None, typer.Option(help="Name written down; default CTFACTORY_OPERATOR, or the system's user.")]
Why = Annotated[str, typer.Option(help="Reason written down.")]
COLUMNS = ("gate", "value", "bar", "verdict", "remark")
MOVE_COLUMNS = ("committed_at", "move", "version", "champion_before", "champion_after", "who", "why")


def promote(
    model: Model = "challenger",
    target: Annotated[
        str | None, typer.Option(help="What the model is for (research, production, commercial); default of the gates.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every gate and change nothing.")] = False,
    gates: Annotated[
        str | None, typer.Option(help="A file of tasks/gates, or a YAML file; default CTFACTORY_GATES.")
    ] = None,
    who: Who = None,
    why: Why = "passed every gate",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion if it passes every gate; a refusal (exit code 4) names the gate it missed."""
    from flows.promote import promote as promote_flow
    from tasks.gate_rules import load_gates
    from tasks.settings import with_values

    settings = with_values(settings_for(workspace), gates=gates)
    rules = load_gates(settings.gates)  # a wrong file or target is told before a server is started
    rules.allowed(target or rules.target)
    with flow_context(settings, as_json=as_json):
        decision = promote_flow(model, settings, target, dry_run, who, why)
    _print(decision, as_json=as_json)
    if not (decision.promoted or (dry_run and all(gate.passed for gate in decision.gates))):
        raise typer.Exit(EXIT_NOT_PROMOTED)


def rollback(who: Who = None, why: Why = "asked for", workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Make the version that was champion before the champion again, in one step."""
    from flows.promote import rollback as rollback_flow

    settings = settings_for(workspace)
    with flow_context(settings, as_json=as_json):
        decision = rollback_flow(settings, who, why)
    _print(decision, as_json=as_json)
    if not decision.promoted:
        raise typer.Exit(EXIT_NOT_PROMOTED)


def approve(
    flow_run: Annotated[UUID, typer.Argument(help="Id of the flow run that waits; `ctfactory promotions` shows it.")],
    decline: Annotated[bool, typer.Option("--decline", help="Answer no.")] = False,
    who: Who = None,
    why: Why = "looked at it",
    workspace: Workspace = None,
) -> None:
    """Answer a promotion that waits for a person."""
    import getpass

    from flows.approval import answer
    from flows.console import console

    settings = settings_for(workspace)
    name = who or settings.operator or getpass.getuser()
    with flow_context(settings, as_json=False):
        answer(flow_run, approve=not decline, who=name, why=why)
    console.print(f"{flow_run}: {'declined' if decline else 'approved'} by {name}", highlight=False)


def promotions(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List every promotion, refusal, question, answer and rollback, oldest first."""
    from flows.console import print_json, print_table
    from tasks.champion import moves
    from tasks.workspace import existing_workspace

    settings = settings_for(workspace)
    existing_workspace(settings)
    found = moves(settings)
    if as_json:
        print_json(found.to_dict("records"))
        return
    shown = found[[*MOVE_COLUMNS, "flow_run_id"]].assign(
        committed_at=found["committed_at"].dt.strftime("%Y-%m-%d %H:%M")
    )
    print_table(settings.model_name, list(shown.columns), shown.astype(object).to_numpy().tolist())


def _print(decision: Promotion, *, as_json: bool) -> None:
    from flows.console import console, print_json, print_table

    rows = [gate.row() for gate in decision.gates]
    if as_json:
        print_json(
            {
                "model": decision.model.uri,
                "promoted": decision.promoted,
                "reason": decision.reason,
                "mlflow_run_id": decision.run_id,
                "gates": rows,
            }
        )
        return
    if rows:
        print_table(decision.model.uri, COLUMNS, [tuple(row.values()) for row in rows])
    console.print(decision.reason, soft_wrap=True, highlight=False)
