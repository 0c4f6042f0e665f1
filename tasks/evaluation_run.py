"""Write an evaluation down: an MLflow run with metrics, tables, pictures and a page, and the files promotion reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from models.checkpoint import read_metadata
from models.licence import LICENCE
from tasks.detection import OperatingPoints, detection_table
from tasks.efficiency import SAME_CASES, Efficiency, evaluations_of_same_cases, measure_efficiency
from tasks.evaluate import CohortScores
from tasks.evaluate_case import FIGURES
from tasks.evaluation_charts import class_boxes, comparison_chart, efficiency_chart, roc_chart
from tasks.evaluation_report import evaluation_report
from tasks.evaluation_tables import (
    class_table,
    comparison_table,
    generalisation_table,
    pooled_table,
    shown,
    strata_table,
    summary_metrics,
)
from tasks.evidence import ABOUT, EVALUATE, EVALUATION_TAG, FORMAT, SCORES
from tasks.pictures import class_scores
from tasks.prefect_task import as_task
from tasks.protocol_run import ProtocolResult
from tasks.provenance import code_version
from tasks.registry import ModelVersion, version_tags
from tasks.report import Picture, markdown_table, write_report
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import html_table, mlflow_client, tracked_run
from tasks.training_data import log_data_licences

CALIBRATION_TAG = "calibration_run_id"
"""Tag of a model version that names the MLflow run of its calibration."""

RELIABILITY = "reliability.png"
"""Artifact of a calibration's run."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What was evaluated: which version with which weights, on which cases, chosen how.

    cohorts: data sets asked for, None for the held-out cases of the training sets. dropped: cases left out because
    training saw their scan. training_cases: see `registry.training_cases`.
    """

    model: ModelVersion
    checkpoint: Path
    weights: str
    cases: pd.DataFrame
    choice: SplitChoice
    cohorts: tuple[str, ...] | None
    dropped: tuple[str, ...]
    training_cases: tuple[str, ...]
    table_versions: Mapping[str, int]

    @property
    def is_of_held_out(self) -> bool:
        """Whether it is of all that the split holds out and of nothing else: what promotion reads."""
        return self.choice.only is None and self.cohorts is None


@dataclass(frozen=True, eq=False)
class Other:
    """A second model on the same cases, for a comparison."""

    model: ModelVersion
    scores: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one model version: the summary the gates read, the tables behind it, and where they are kept.

    evidence: SHA-256 of `evaluation.json` and `scores.parquet`, by name. page: the report as one HTML file.
    """

    run_id: str
    summary: dict[str, float]
    classes: pd.DataFrame
    detection: pd.DataFrame
    generalisation: pd.DataFrame
    comparison: pd.DataFrame | None
    efficiency: Efficiency
    picture: Path
    overlays: tuple[Path, ...]
    page: Path
    evidence: dict[str, str]

    def summary_table(self) -> pd.DataFrame:
        """Return the summary as rows of figure and value."""
        return pd.DataFrame(list(self.summary.items()), columns=["figure", "value"])


def log_evaluation(
    results: CohortScores,
    subject: Subject,
    settings: Settings,
    overlays: Sequence[Picture] = (),
    *,
    other: Other | None = None,
    points: OperatingPoints | None = None,
    protocol: ProtocolResult | None = None,
    flow_run_id: str | None = None,
    parent_run_id: str | None = None,
) -> Evaluation:
    """Log scores as an MLflow run; for held-out cases let the model version name that run.

    overlays: pictures of prediction and truth. other: compared with the subject case by case. points: operating points
    chosen on other cases. protocol: figures by the rules of a challenge. parent_run_id: of the run that this evaluation
    is a part of.
    """
    scores, model = results.scores, subject.model
    tables = make_tables(results, settings, points, other)
    if protocol is not None:
        tables |= {"protocol": protocol.table, "protocol_cases": protocol.rows}
    summary = summary_metrics(scores, settings.detection_min_ml)
    found = measure_efficiency(subject.checkpoint, results.costs, subject.training_cases)
    cases_digest = hashlib.sha256("\n".join(sorted(subject.cases["case_id"])).encode()).hexdigest()
    tags = {
        "model": model.uri,
        "train_run_id": model.run_id,
        "flow_run_id": flow_run_id,
        SAME_CASES: cases_digest,
        "compared_with": None if other is None else other.model.uri,
    }
    with tracked_run(
        settings,
        f"evaluate v{model.version}",
        kind=EVALUATE,
        tags=tags,
        parent_run_id=parent_run_id,
        table_versions=subject.table_versions,
    ) as run_id:
        folder = settings.workspace.absolute() / "evaluations" / run_id
        folder.mkdir(parents=True)
        log_data_licences(subject.cases["case_id"], settings)
        evidence = _write_evidence(scores, subject, cases_digest, settings, folder)
        mlflow.log_metrics({**summary, **class_metrics(tables["pooled"], tables["detection"]), **found.metrics()})
        mlflow.log_metrics({} if protocol is None else protocol.metrics())
        mlflow.log_params(
            {
                "nsd_tolerance_mm": settings.nsd_tolerance_mm,
                "detection_min_ml": settings.detection_min_ml,
                "split": subject.choice.split,
                "held_out": subject.choice.held_out_name,
                "cases": len(subject.cases),
                "protocol": "none" if protocol is None else protocol.protocol.id,
            }
        )
        _write_tables(tables, folder)
        pictures = _draw(results, tables, subject, other, found, cases_digest, settings, folder)
        report = evaluation_report(
            model.uri, summary, tables, found, (*pictures, *overlays), _facts(subject, settings, run_id)
        )
        page = write_report(report, folder / "report.html")
        mlflow.log_artifacts(str(folder))
        for picture in overlays:
            mlflow.log_artifact(str(picture.path))
    # A fold of a cross-validation may be one of some data sets alone; its version is a part of the one to come.
    if subject.is_of_held_out or parent_run_id is not None:
        mlflow_client(settings).set_model_version_tag(model.name, str(model.version), EVALUATION_TAG, run_id)
    return Evaluation(
        run_id,
        summary,
        tables["classes"],
        tables["detection"],
        tables["generalisation"],
        tables.get("comparison"),
        found,
        folder / "class_scores.png",
        tuple(picture.path for picture in overlays),
        page,
        evidence,
    )


def make_tables(
    results: CohortScores, settings: Settings, points: OperatingPoints | None, other: Other | None
) -> dict[str, pd.DataFrame]:
    """Return every table of an evaluation by name, with its intervals."""
    scores = results.scores
    tables = {
        "classes": class_table(scores),
        "pooled": pooled_table(scores),
        "detection": detection_table(scores, settings.detection_min_ml, points, settings.operating_sensitivity),
        "generalisation": generalisation_table(scores),
        "strata": strata_table(scores),
        "lesions": results.lesions,
        "costs": results.costs,
    }
    if other is not None:
        tables["comparison"] = comparison_table(scores, other.scores)
    return tables


def class_metrics(pooled: pd.DataFrame, detection: pd.DataFrame) -> dict[str, float]:
    """Return the figures of every class under their steady names in MLflow, `dsc/liver`; those not measured left out.

    `dsc_low/liver` and `dsc_high/liver` are the bounds of the 95 % interval.
    """
    names = [figure + end for figure in FIGURES for end in ("", "_low", "_high")]
    found = {f"{name}/{row['class_name']}": row[name] for row in pooled.to_dict("records") for name in names}
    names = ["sensitivity", "specificity", "f1", "lesion_sensitivity", "lesion_f1", "false_per_scan", "auc"]
    found |= {f"{name}/{row['class_name']}": row[name] for row in detection.to_dict("records") for name in names}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _write_evidence(
    scores: pd.DataFrame, subject: Subject, cases_digest: str, settings: Settings, folder: Path
) -> dict[str, str]:
    """Write the two files that promotion reads, and return their digests by name."""
    scores.to_parquet(folder / SCORES, index=False)
    digest = _sha256(folder / SCORES)
    (folder / ABOUT).write_text(json.dumps(_about(subject, digest, cases_digest, settings), indent=2) + "\n")
    return {ABOUT: _sha256(folder / ABOUT), SCORES: digest}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _about(subject: Subject, scores_digest: str, cases_digest: str, settings: Settings) -> dict[str, Any]:
    metadata = read_metadata(subject.checkpoint)
    datasets = subject.cases["dataset"].value_counts().sort_index()
    return {
        "format": FORMAT,
        "model": {"name": subject.model.name, "version": subject.model.version},
        "weights_sha256": subject.weights,
        "split": subject.choice.split,
        "held_out": subject.choice.held_out_name,
        "cohorts": sorted(subject.cohorts or datasets.index),
        "datasets": {str(name): int(count) for name, count in datasets.items()},
        "case_ids_sha256": cases_digest,
        "table_versions": dict(subject.table_versions),
        "nsd_tolerance_mm": settings.nsd_tolerance_mm,
        "detection_min_ml": settings.detection_min_ml,
        "scores_sha256": scores_digest,
        "dropped_leaking": list(subject.dropped),
        "text_encoder": metadata.encoder,
        "licence": metadata.extra.get(LICENCE),
        "commit": code_version().commit,
    }


def _write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write each table as Parquet, and those per class as HTML and together as one Markdown text."""
    per_case = ("lesions", "costs", "protocol_cases")
    texts = []
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
        if name not in per_case:
            (folder / f"{name}.html").write_text(html_table(shown(table), name), encoding="utf-8")
            texts.append(f"## {name}\n\n{markdown_table(shown(table))}")
    (folder / "tables.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def _draw(
    results: CohortScores,
    tables: Mapping[str, pd.DataFrame],
    subject: Subject,
    other: Other | None,
    found: Efficiency,
    cases_digest: str,
    settings: Settings,
    folder: Path,
) -> list[Picture]:
    scores, name = results.scores, subject.model.uri
    organ_dsc = float(tables["generalisation"]["organ_dsc"].mean())
    pictures = [
        Picture(class_scores(tables["classes"], folder / "class_scores.png"), "Mean per class; one dot a data set."),
        Picture(class_boxes(scores, folder / "boxes.png"), "Spread over cases: median, quartiles, every case a dot."),
    ]
    roc = roc_chart(scores, tables["detection"], folder / "roc.png")
    if roc is not None:
        pictures.append(Picture(roc, "ROC over patients; dot: the volume limit of the settings."))
    if np.isfinite(organ_dsc):
        others = evaluations_of_same_cases(cases_digest, settings)
        chart = efficiency_chart(found, organ_dsc, others, name, folder / "efficiency.png")
        pictures.append(Picture(chart, "Mean organ DSC against compute, of models evaluated on the same cases."))
    pictures += _reliability(subject.model, settings, folder)
    if other is not None:
        chart = comparison_chart(tables["comparison"], name, other.model.uri, folder / "comparison.png")
        pictures.append(Picture(chart, "Difference in DSC with 95 % intervals; filled: p < 0.05 after Holm."))
    return pictures


def _reliability(model: ModelVersion, settings: Settings, folder: Path) -> list[Picture]:
    """Return the plot of the version's calibration, copied to `folder`; nothing where it was never calibrated."""
    run_id = version_tags(model, settings).get(CALIBRATION_TAG)
    if run_id is None or not any(item.path == RELIABILITY for item in mlflow_client(settings).list_artifacts(run_id)):
        return []
    mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=RELIABILITY, dst_path=str(folder))
    return [Picture(folder / RELIABILITY, f"DSC expected by the calibration (run {run_id}) against the real one.")]


def _facts(subject: Subject, settings: Settings, run_id: str) -> dict[str, str]:
    return {
        "model": subject.model.uri,
        "weights SHA-256": subject.weights,
        "MLflow run": run_id,
        "split": f"{subject.choice.split}, held out: {subject.choice.held_out_name}",
        "cases left out, trained on": ", ".join(subject.dropped) or "none",
        "NSD tolerance": f"{settings.nsd_tolerance_mm:g} mm",
        "patient positive from": f"{settings.detection_min_ml:g} ml",
    }


log_evaluation_task = as_task(log_evaluation, "log-evaluation", retries=2, retry_delay_seconds=5)
