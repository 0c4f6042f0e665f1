"""`ctfactory evaluate`: a model on cases it has not seen, alone, beside another, or by the rules of a challenge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_context import flow_context
from flows.cli_options import AsJson, CaseList, DropLeaking, Fold, Model, Split, Workspace, settings_for, split_choice

if TYPE_CHECKING:
    import pandas as pd

    from flows.evaluate import EvaluateReport


def evaluate(
    model: Model = "challenger",
    cohort: Annotated[list[str] | None, typer.Option(help="Score this data set; may be repeated.")] = None,
    compare: Annotated[
        str | None, typer.Option(help="A second model, scored on the same cases: differences with intervals and tests.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Score by the rules of a challenge, on the scans' own grids: btcv, msd_liver, ..."),
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(help="With --protocol: new folder for label maps in the challenge's form, and a zip.")
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="With --protocol: folder the data set was ingested from; its labels count.",
        ),
    ] = None,
    operating_points: Annotated[
        str | None,
        typer.Option(help="MLflow run of an evaluation on other patients, whose lesion volume limits are used here."),
    ] = None,
    split: Split = "default",
    fold: Fold = None,
    cases: CaseList = None,
    drop_leaking: DropLeaking = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on the test fold, or other held-out cases, with 95 % intervals; all of it goes to MLflow.

    Goes on where a killed evaluation stopped, and says how many cases were scored before. Refuses cases the model was
    trained on.
    """
    from flows.evaluate import Extras
    from flows.evaluate import evaluate as evaluate_flow

    settings, choice = settings_for(workspace), split_choice(split, fold, cases, drop_leaking)
    extras = Extras(compare, protocol, submission, raw, operating_points)
    with flow_context(settings, as_json=as_json):
        report = evaluate_flow(model, settings, cohort or None, choice, extras=extras)
    if as_json:
        _print_json(report)
    else:
        _print_tables(report)


def _print_json(report: EvaluateReport) -> None:
    from flows.console import print_json

    evaluation, protocol = report.evaluation, report.protocol
    print_json(
        {
            "model": report.model_uri,
            "mlflow_run_id": evaluation.run_id,
            "cases": report.cases,
            "reused": report.reused,
            "summary": evaluation.summary,
            "classes": _records(evaluation.classes),
            "detection": _records(evaluation.detection),
            "cohorts": _records(evaluation.generalisation),
            "comparison": None if evaluation.comparison is None else _records(evaluation.comparison),
            "protocol": None if protocol is None else _records(protocol.table),
            "submission": None if protocol is None or protocol.submission is None else str(protocol.submission),
            "missing": [] if protocol is None else list(protocol.missing),
            "report": str(evaluation.page),
        }
    )


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Return rows for JSON, null where nothing was measured."""
    from tasks.workspace import row_dicts

    return row_dicts(table)


def _print_tables(report: EvaluateReport) -> None:
    from flows.console import console, print_table
    from tasks.evaluation_tables import brief_classes, brief_detection, shown

    evaluation, protocol = report.evaluation, report.protocol
    tables = [
        ("Per data set and class, 95 % intervals over patients", brief_classes(evaluation.classes)),
        ("Lesion detection per patient", brief_detection(evaluation.detection)),
    ]
    if evaluation.comparison is not None:
        tables.append(("Side by side: a is this model", evaluation.comparison))
    if protocol is not None:
        tables.append((protocol.protocol.title, shown(protocol.table)))
    tables.append((f"{report.model_uri}, MLflow run {evaluation.run_id}", evaluation.summary_table()))
    for title, table in tables:
        print_table(title, list(table.columns), table.to_numpy().tolist())
    console.print(f"{report.cases} cases, {report.reused} of them scored before; {evaluation.page}", soft_wrap=True)
    if protocol is not None and protocol.submission is not None:
        console.print(f"submission in {protocol.submission} and {protocol.submission}.zip", soft_wrap=True)
        if protocol.missing:
            console.print(f"test scans that are not in the lake: {', '.join(protocol.missing)}", soft_wrap=True)
