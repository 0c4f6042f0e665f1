"""The commands that only look: status, settings, data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import EXIT_REFUSED, AsJson, Workspace, settings_for

datasets_app = typer.Typer(help="What the factory knows about each data set.", no_args_is_help=True)


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
def datasets_list(
    wide: Annotated[
        bool, typer.Option("--wide", help="Show which classes each data set annotates, as a grid.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every data set: access, licence, labelled cases, classes, overlaps, and how much is still unverified."""
    from datasets_registry.card_audit import audit, read_all
    from datasets_registry.card_summary import summarise
    from flows.console import console, print_json
    from flows.dataset_tables import class_grid, dataset_list

    cards, broken = read_all()
    findings = audit(cards)
    summaries = [summarise(card, findings) for card in cards]
    if as_json:
        print_json([summary.as_dict() for summary in summaries])
        return
    console.print(class_grid(summaries, console.width) if wide else dataset_list(summaries, console.width))
    for finding in broken:
        console.print(finding.text, style="red", highlight=False)


@datasets_app.command("show")
def datasets_show(
    dataset: Annotated[str, typer.Argument(help="A data set's id.")],
    variant: Annotated[str | None, typer.Option(help="Show one of its label variants in place of the default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show one card as a page: how to get the data, its folder, values, rules for single cases, quirks, overlaps."""
    from datasets_registry.cards import load_card
    from flows.console import console
    from flows.dataset_page import dataset_page

    card = load_card(dataset, variant=variant)
    if as_json:
        typer.echo(card.model_dump_json(indent=2))
    else:
        console.print(dataset_page(card, settings_for(None).raw_folder), highlight=False)


@datasets_app.command("verify")
def datasets_verify(
    dataset: Annotated[list[str] | None, typer.Argument(help="Only these data sets; default all.")] = None,
    raw: Annotated[
        Path | None, typer.Option("--raw", help="Raw zone to compare with the cards; default that of the workspace.")
    ] = None,
    read_data: Annotated[bool, typer.Option("--read-data", help="Hash every downloaded file again.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Check every card, one's own too, and the downloaded files: contradictions, and facts nobody has verified.

    Exit code 1 for a contradiction or a file that differs; unverified facts are only listed.
    """
    from flows.dataset_verify import print_verdict, verdict_of

    if raw is not None and not raw.is_dir():
        raise FileNotFoundError(f"--raw {raw}: no such folder; give the folder that holds one folder a data set")
    verdict = verdict_of(dataset or [], raw or settings_for(workspace).raw_folder, read_data=read_data)
    print_verdict(verdict, as_json=as_json)
    if verdict.is_wrong:
        raise typer.Exit(EXIT_REFUSED)
