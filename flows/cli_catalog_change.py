"""`ctfactory catalog withdraw|restore|migrate`: what may be changed in the tables by hand, always as a new version."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import AsJson, Workspace, opened

Cases = Annotated[list[str], typer.Argument(help="Ids of cases, DATASET/NATIVE_ID.")]


def withdraw(
    cases: Cases,
    reason: Annotated[str, typer.Option(help="Why they must not be used any more; kept with the case.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Take cases out of use: training, coverage and lists no longer show them, and no ingest brings them back.

    Earlier versions of the tables stay readable, so past runs can still be explained.
    """
    done = opened(workspace).withdraw(cases, reason)
    _tell("withdrawn", cases, done, "withdrawn already", as_json=as_json)


def restore(cases: Cases, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Bring withdrawn cases back as they were."""
    done = opened(workspace).restore(cases)
    _tell("restored", cases, done, "in use already", as_json=as_json)


def migrate(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Give the tables of an older schema version the columns they lack, as the next ingest would; no row changes."""
    from catalog.schema import SCHEMA_VERSION
    from flows.console import console, print_json

    added = opened(workspace).migrate()
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "added": added})
        return
    for name, columns in added.items():
        console.print(f"{name}: {', '.join(columns) or 'nothing to add'}", soft_wrap=True, highlight=False)
    console.print(f"schema version {SCHEMA_VERSION}", highlight=False)


def _tell(what: str, asked: list[str], done: list[str], otherwise: str, *, as_json: bool) -> None:
    from flows.console import console, print_json

    if as_json:
        print_json({what: done, "unchanged": sorted(set(asked) - set(done))})
        return
    for case in dict.fromkeys(asked):
        console.print(f"{case}: {what if case in done else otherwise}", soft_wrap=True, highlight=False, markup=False)
