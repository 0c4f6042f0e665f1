"""The `evaluate` flow: figures of a model version on cases it has not seen, in MLflow, as files promotion can trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.run_record import recorded_run
from tasks.evaluate import evaluate_cases_task
from tasks.evaluation_pictures import draw_evaluation_task
from tasks.evaluation_points import points_of_run
from tasks.evaluation_run import Evaluation, Other, Subject, log_evaluation_task
from tasks.evaluation_tables import shown
from tasks.model_card import refresh_model_card_task
from tasks.protocol import load_protocol
from tasks.protocol_run import ProtocolResult, run_protocol_task
from tasks.registry import checkpoint_digest, fetch_checkpoint, model_version, training_cases
from tasks.report import markdown_table
from tasks.settings import Settings
from tasks.splits import SplitChoice, choose_scoring_cases, deal_new_cases
from tasks.workspace import open_workspace


@dataclass(frozen=True)
class EvaluateReport:
    """The evaluation, and the version it is of. reused: cases whose scores were kept from an earlier evaluation."""

    model_uri: str
    evaluation: Evaluation
    cases: int
    reused: int
    protocol: ProtocolResult | None = None

    @property
    def classes(self) -> pd.DataFrame:
        """Figures per data set and class, with intervals."""
        return self.evaluation.classes


@dataclass(frozen=True)
class Extras:
    """What an evaluation does beside scoring.

    compare: a second version, side by side on the same cases. protocol: of a challenge, see tasks/protocols; its data
    set is scored where no cohort is named. submission: folder for its label maps. raw: folder the data set was ingested
    from. points_from: MLflow run of an evaluation of the same weights on other cases, whose operating points are used.
    """

    compare: str | None = None
    protocol: str | None = None
    submission: Path | None = None
    raw: Path | None = None
    points_from: str | None = None

    def __post_init__(self) -> None:
        if self.protocol is None and (self.submission is not None or self.raw is not None):
            raise ValueError("--submission and --raw belong to a protocol; name it with --protocol")


@flow(name="evaluate", validate_parameters=False)
def evaluate(
    model: str = "challenger",
    settings: Settings | None = None,
    cohorts: Sequence[str] | None = None,
    choice: SplitChoice | None = None,
    parent_run_id: str | None = None,
    extras: Extras | None = None,
) -> EvaluateReport:
    """Score `model` on the test fold of each training set, on what `choice` holds out, or on the `cohorts` named.

    Afterwards there is an MLflow run with every figure per class and data set, with intervals, lesions found per
    patient and per lesion, strata, cost, pictures and a page; for held-out cases the version names that run, and
    promotion reads it. A second run, or one after a kill, uses what was worked out already for the same weights, scans,
    labels and settings. parent_run_id: MLflow run that it is a part of.
    """
    settings, choice, extras = settings or Settings(), choice or SplitChoice(), extras or Extras()
    protocol = None if extras.protocol is None else load_protocol(extras.protocol)
    if protocol is not None and cohorts is None and choice.only is None:
        cohorts = (protocol.dataset,)
    version = model_version(model, settings)
    other = None if extras.compare is None else model_version(extras.compare, settings)
    with recorded_run("evaluate", settings, {"model": version.uri}) as record:
        workspace = open_workspace(settings)
        deal_new_cases(workspace)
        record.table_versions = workspace.tables.versions()
        seen = training_cases(version, settings)
        seen_by_any = seen if other is None else [*seen, *training_cases(other, settings)]
        chosen = choose_scoring_cases(workspace, choice, cohorts, seen_by_any)
        checkpoint = fetch_checkpoint(version, settings)
        weights = checkpoint_digest(checkpoint)
        points = None if extras.points_from is None else points_of_run(extras.points_from, weights, chosen, settings)
        results = evaluate_cases_task(chosen.cases, checkpoint, weights, settings)
        second = None
        if other is not None:
            path = fetch_checkpoint(other, settings)
            second = Other(other, evaluate_cases_task(chosen.cases, path, checkpoint_digest(path), settings).scores)
        in_protocol = None
        if protocol is not None:
            in_protocol = run_protocol_task(
                protocol,
                chosen.cases,
                checkpoint,
                weights,
                settings,
                raw=extras.raw,
                submission=extras.submission,
            )
        overlays = draw_evaluation_task(
            chosen.cases,
            results.scores,
            checkpoint,
            weights,
            settings,
            settings.workspace.absolute() / "evaluations" / f"v{version.version}",
        )
        evaluation = log_evaluation_task(
            results,
            Subject(
                version,
                checkpoint,
                weights,
                chosen.cases,
                choice,
                None if cohorts is None else tuple(cohorts),
                chosen.dropped,
                tuple(seen),
                record.table_versions,
            ),
            settings,
            overlays,
            other=second,
            points=points,
            protocol=in_protocol,
            flow_run_id=record.flow_run_id,
            parent_run_id=parent_run_id,
        )
        refresh_model_card_task(version, settings)
        record.mlflow_run_id, record.evidence = evaluation.run_id, evaluation.evidence
        record.model_version = str(version.version)
        record.counts = {"cases": len(chosen.cases), "scores": len(results.scores), "reused": results.reused}
        create_markdown_artifact(_markdown(version.uri, evaluation, in_protocol), key="evaluate")
        return EvaluateReport(version.uri, evaluation, len(chosen.cases), results.reused, in_protocol)


def _markdown(uri: str, evaluation: Evaluation, protocol: ProtocolResult | None) -> str:
    tables = [evaluation.summary_table(), shown(evaluation.classes), shown(evaluation.detection)]
    tables += [] if evaluation.comparison is None else [evaluation.comparison]
    tables += [] if protocol is None else [shown(protocol.table)]
    return f"# {uri}\n\n" + "\n\n".join(markdown_table(table) for table in tables)
