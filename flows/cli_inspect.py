"""The commands that only look: status, settings, data sets, the lake's health."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import EXIT_CASES_REFUSED, AsJson, Workspace, settings_for

DAMAGE_COLUMNS = ("case", "file", "found", "expected")

datasets_app = typer.Typer(help="What the factory knows about each data set.", no_args_is_help=True)
lake_app = typer.Typer(help="The lake's health.", no_args_is_help=True)


def status(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show cases per data set, labels per state and class, quarantine, models with aliases, and the last runs."""
    from flows.console import print_json
    from flows.status import print_status
    from tasks.status import read_status

    found = read_status(settings_for(workspace))
    if as_json:
        print_json(found.as_dict())
    else:
        print_status(found)


def settings() -> None:
    """Print every setting: environment variable, default and meaning."""
    from tasks.settings import settings_reference

    typer.echo(settings_reference(), nl=False)


@datasets_app.command("list")
def datasets_list(as_json: AsJson = False) -> None:
    """List every data set: classes, access, licence, and where its files are expected."""
    from flows.console import print_json, print_table
    from flows.status import dataset_rows

    columns, rows = dataset_rows()
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table("", columns, rows)


@datasets_app.command("show")
def datasets_show(dataset: Annotated[str, typer.Argument(help="A data set's id.")]) -> None:
    """Print one card as JSON: sources, licence, layout, label values, known faults."""
    from datasets_registry.cards import load_card

    typer.echo(load_card(dataset).model_dump_json(indent=2))


@lake_app.command("verify")
def lake_verify(
    read_data: Annotated[bool, typer.Option("--read-data", help="Read every byte and compare digests too.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Compare every file of the lake with the tables; exit code 3 names what is missing or damaged."""
    from catalog.verify import verify
    from flows.console import console, print_json, print_table
    from tasks.workspace import open_workspace

    opened = open_workspace(settings_for(workspace))
    damage = verify(opened.tables, opened.lake, read_data=read_data)
    rows = [(item.case_id, item.file, item.found, item.expected) for item in damage]
    if as_json:
        print_json([dict(zip(DAMAGE_COLUMNS, row, strict=True)) for row in rows])
    elif rows:
        print_table("Damage", DAMAGE_COLUMNS, rows)
    else:
        console.print(f"{len(opened.tables.cases())} cases verified, no damage")
    if rows:
        raise typer.Exit(EXIT_CASES_REFUSED)
