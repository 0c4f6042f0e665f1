"""The command that calibrates a model's scores."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_context import flow_context
from flows.cli_options import AsJson, CaseList, DropLeaking, Fold, Model, Split, Workspace, settings_for, split_choice


def calibrate(
    model: Model = "challenger",
    cohort: Annotated[list[str] | None, typer.Option(help="Measure on this data set; may be repeated.")] = None,
    split: Split = "default",
    fold: Fold = None,
    cases: CaseList = None,
    drop_leaking: DropLeaking = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Learn from held-out human labels which DSC a model's scores let one expect; pseudo-labels are judged by it."""
    from flows.calibrate import calibrate as calibrate_flow
    from flows.console import console, print_json, print_table
    from tasks.calibration_picture import reliability_table
    from tasks.calibration_run import class_summary

    settings, choice = settings_for(workspace), split_choice(split, fold, cases, drop_leaking)
    with flow_context(settings, as_json=as_json):
        report = calibrate_flow(model, settings, cohort or None, choice)
    outcome = report.outcome
    groups, classes = reliability_table(outcome.pairs), class_summary(outcome.pairs)
    if as_json:
        print_json(
            {
                "model": report.model_uri,
                "mlflow_run_id": outcome.run_id,
                "summary": outcome.summary,
                "reliability": groups.to_dict("records"),
                "classes": classes.to_dict("records"),
                "picture": outcome.picture,
            }
        )
        return
    print_table("Expected and real DSC, cross-validated by patient", list(groups.columns), groups.to_numpy().tolist())
    print_table("Per class", list(classes.columns), classes.to_numpy().tolist())
    print_table("Summary", ("figure", "value"), list(outcome.summary.items()))
    console.print(f"{report.model_uri}, MLflow run {outcome.run_id}, {outcome.picture}", soft_wrap=True)
