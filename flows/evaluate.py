"""The `evaluate` flow: figures of a model version on cases it has not seen, in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.run_record import recorded_run
from tasks.evaluate import evaluate_cases_task
from tasks.evaluation_pictures import draw_evaluation_task
from tasks.evaluation_run import Evaluation, log_evaluation_task
from tasks.registry import fetch_checkpoint, model_version, training_cases
from tasks.report import markdown_table
from tasks.settings import Settings
from tasks.splits import SplitChoice, cases_to_score, deal_new_cases
from tasks.workspace import open_workspace


@dataclass(frozen=True)
class EvaluateReport:
    """The evaluation, and the version it is of."""

    model_uri: str
    evaluation: Evaluation

    @property
    def classes(self) -> pd.DataFrame:
        """DSC and NSD per data set and class."""
        return self.evaluation.classes


@flow(name="evaluate", validate_parameters=False)
def evaluate(
    model: str = "challenger",
    settings: Settings | None = None,
    cohorts: Sequence[str] | None = None,
    choice: SplitChoice | None = None,
    parent_run_id: str | None = None,
) -> EvaluateReport:
    """Score `model` on the test fold of each training set, on what `choice` holds out, or on the `cohorts` named.

    Afterwards there is an MLflow run with DSC and NSD per class and data set, patient-level sensitivity and
    specificity, a picture and a table; the version names that run, and promotion reads it. A second run measures again.
    parent_run_id: MLflow run that it is a part of.
    """
    settings, choice = settings or Settings(), choice or SplitChoice()
    version = model_version(model, settings)
    with recorded_run("evaluate", settings, {"model": version.uri}) as record:
        workspace = open_workspace(settings)
        deal_new_cases(workspace)
        cases = cases_to_score(workspace, choice, cohorts, training_cases(version, settings))
        checkpoint = fetch_checkpoint(version, settings)
        scores = evaluate_cases_task(cases, checkpoint, settings)
        folder = settings.workspace.absolute() / "evaluations" / f"v{version.version}"
        overlays = draw_evaluation_task(cases, checkpoint, settings, folder)
        evaluation = log_evaluation_task(
            scores,
            version,
            settings,
            overlays,
            choice=choice,
            flow_run_id=record.flow_run_id,
            parent_run_id=parent_run_id,
        )
        record.mlflow_run_id = evaluation.run_id
        record.model_version = str(version.version)
        record.counts = {"cases": len(cases), "scores": len(scores)}
        create_markdown_artifact(
            f"# {version.uri}\n\n{markdown_table(evaluation.summary_table())}\n\n"
            f"{markdown_table(evaluation.classes)}\n\n{markdown_table(evaluation.detection)}",
            key="evaluate",
        )
        return EvaluateReport(version.uri, evaluation)
