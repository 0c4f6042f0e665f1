"""The `calibrate` flow: which DSC the scores of a model version let one expect, measured on held-out cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.run_record import recorded_run
from tasks.calibration_picture import reliability_table
from tasks.calibration_run import CalibrationOutcome, class_summary, log_calibration_task, measure_cases_task
from tasks.plausibility_reference import human_reference
from tasks.registry import fetch_checkpoint, model_version, training_cases
from tasks.report import markdown_table
from tasks.settings import Settings
from tasks.splits import SplitChoice, cases_to_score, deal_new_cases
from tasks.workspace import open_workspace


@dataclass(frozen=True)
class CalibrateReport:
    """The calibration, and the version it is of."""

    model_uri: str
    outcome: CalibrationOutcome


@flow(name="calibrate", validate_parameters=False)
def calibrate(
    model: str = "challenger",
    settings: Settings | None = None,
    cohorts: Sequence[str] | None = None,
    choice: SplitChoice | None = None,
) -> CalibrateReport:
    """Predict the held-out cases that humans labelled, and fit the map from scores to expected DSC.

    Afterwards there is an MLflow run with the map, what was expected against what was real (cross-validated by
    patient) and a reliability plot; the version names that run, and pseudo-labelling reads it. A second run measures
    again. cohorts, choice: the cases, as for an evaluation.
    """
    settings, choice = settings or Settings(), choice or SplitChoice()
    version = model_version(model, settings)
    with recorded_run("calibrate", settings, {"model": version.uri}) as record:
        workspace = open_workspace(settings)
        deal_new_cases(workspace)
        cases = cases_to_score(workspace, choice, cohorts, training_cases(version, settings))
        versions = workspace.tables.versions()
        # A case must not say itself what is usual.
        reference = human_reference(workspace, versions, without=set(cases["case_id"]))
        checkpoint = fetch_checkpoint(version, settings)
        measured = measure_cases_task(cases, checkpoint, reference, versions, settings)
        outcome = log_calibration_task(
            measured, version, settings, choice=choice, table_versions=versions, flow_run_id=record.flow_run_id
        )
        record.mlflow_run_id, record.model_version = outcome.run_id, str(version.version)
        record.table_versions = versions
        record.counts = {"cases": len(cases), "masks": len(measured)}
        groups, classes = reliability_table(outcome.pairs), class_summary(outcome.pairs)
        create_markdown_artifact(
            f"# {version.uri}\n\nMLflow run `{outcome.run_id}`: "
            + ", ".join(f"{name} {value:.3g}" for name, value in outcome.summary.items())
            + f"\n\n{markdown_table(groups)}\n\n{markdown_table(classes)}",
            key="calibrate",
        )
        return CalibrateReport(version.uri, outcome)
