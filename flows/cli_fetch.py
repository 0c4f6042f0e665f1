"""The command that brings a data set's files here."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_context import flow_context
from flows.cli_options import AsJson, Workspace, settings_for


def fetch(
    dataset: Annotated[str, typer.Argument(help="A data set's id (`ctfactory datasets list`).")],
    file: Annotated[
        list[str] | None, typer.Option("--file", help="Only this source of the card, optional or not; may be repeated.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="The label variant whose files are wanted.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Download, check and unpack a data set's files; an interrupted download goes on where it was.

    Where a person has to register or fetch a file, exit code 1 and the steps; afterwards the same command goes on.
    """
    from flows.console import console, print_json, print_table
    from flows.fetch import fetch as fetch_flow

    settings = settings_for(workspace)
    with flow_context(settings, as_json=as_json):
        report = fetch_flow(dataset, settings, variant, tuple(file or ()))
    if as_json:
        print_json(
            {
                "dataset": report.card_id,
                "root": report.root,
                "nothing_to_do": report.nothing_to_do,
                "files": [vars(item) for item in report.files],
                "unpacked": report.unpacked,
                "ready": report.ready,
            }
        )
        return
    if report.files:
        rows = [(item.name, item.outcome, f"{item.bytes / 1e6:.1f}") for item in report.files]
        print_table("Files", ("file", "outcome", "MB"), rows)
    told = (
        f"nothing to do: {', '.join(report.ready)} fetched and unpacked before"
        if report.nothing_to_do
        else f"{len(report.files)} files, {len(report.unpacked)} archives unpacked"
    )
    console.print(f"{report.card_id}: {told}; {report.root}", soft_wrap=True)
