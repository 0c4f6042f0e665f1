"""The `agreement` flow: how alike label sets of the same scans are, pair by pair and class by class."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.run_record import recorded_run
from tasks.agreement import Study, cases_of, score_study_task
from tasks.agreement_run import Agreement, log_agreement_task
from tasks.report import markdown_table
from tasks.settings import Settings


@flow(name="agreement", validate_parameters=False)
def agreement(study: Study, settings: Settings | None = None) -> Agreement:
    """Score each pair of the study's label sets on the cases and classes that both have.

    Afterwards there are an MLflow run and a folder with the scores, DSC and NSD per pair and class with 95 % intervals
    over patients, and a figure. A second run measures again.
    """
    settings = settings or Settings()
    cases = cases_of(study, settings)
    with recorded_run("agreement", settings, {"sets": [one.name for one in study.sets]}) as record:
        scores = score_study_task(cases, study, settings)
        found = log_agreement_task(scores, study, settings, record.flow_run_id)
        record.mlflow_run_id = found.run_id
        record.counts = {"cases": len(cases), "scores": len(scores)}
        create_markdown_artifact(f"# Agreement\n\n{markdown_table(found.table)}", key="agreement")
    return found
