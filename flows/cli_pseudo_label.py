"""`ctfactory pseudo-label`: masks for a cohort, judged, exported and shown on a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_context import flow_context
from flows.cli_options import EXIT_CASES_REFUSED, AsJson, Workspace, settings_for, split_names

if TYPE_CHECKING:
    from flows.pseudo_label import PseudoLabelReport


def pseudo_label(
    cohort: Annotated[
        str | None, typer.Argument(help="A data set of the lake; human labels in it are never touched.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Which version labels (default models:/universal@champion); given several times, the mean."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these classes, separated by commas; default all the model was trained on.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="YAML file: cohort, models, classes, cleaning, bars, export, report; the other options win over it."
        ),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Label every case of a cohort: masks, scores and decisions in the lake, exports, and a page about the run.

    A second run, or one after a kill, predicts nothing again that was committed. Exit code 3 when a case failed.
    """
    from flows.pseudo_label import pseudo_label as pseudo_label_flow

    settings = settings_for(workspace)
    with flow_context(settings, as_json=as_json):
        report = pseudo_label_flow(cohort, model, settings, None if classes is None else split_names(classes), spec)
    _print(report, as_json=as_json)
    if report.counts["failed"]:
        raise typer.Exit(EXIT_CASES_REFUSED)


def _print(report: PseudoLabelReport, *, as_json: bool) -> None:
    from flows.console import console, print_json, print_table

    if as_json:
        print_json(
            {
                "cohort": report.cohort,
                "model": report.model_uri,
                **report.counts,
                "decisions": dict(report.figures.decisions),
                "network_share": report.figures.network_share,
                "export_folder": report.export_folder,
                "report": report.page,
                "mlflow_run_id": report.mlflow_run_id,
                "cases": [{**vars(item), "decisions": dict(item.decisions)} for item in report.outcomes],
            }
        )
        return
    rows = [
        (
            item.case_id,
            item.outcome,
            len(item.classes),
            *(dict(item.decisions).get(name, 0) for name in ("accept", "review", "reject")),
            item.mean_probability,
            item.message,
        )
        for item in report.outcomes
    ]
    columns = ("case", "outcome", "classes", "accept", "review", "reject", "mean probability", "remark")
    print_table(f"by {report.model_uri}", columns, rows)
    told = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    console.print(f"{report.cohort}: {told}", soft_wrap=True)
    console.print(f"exports  {report.export_folder}", soft_wrap=True, highlight=False)
    console.print(f"report   {report.page}", soft_wrap=True, highlight=False)
