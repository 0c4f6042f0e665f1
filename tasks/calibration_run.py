"""The calibration of a model version: measured on held-out cases, kept in an MLflow run, found by the version's tag."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.metrics import dice
from models.checkpoint import read_metadata
from models.infer_network import default_precision
from tasks.calibration import Calibration, Measured, cross_validated, fit
from tasks.calibration_picture import reliability_plot
from tasks.case_rows import unwritten_rows
from tasks.label_scores import case_quality, score_labels
from tasks.lost import require_all
from tasks.map_cases import map_cases
from tasks.notices import tell
from tasks.plausibility_reference import HumanReference
from tasks.prediction import case_image, predict_case, trained_classes
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.registry import ModelVersion, version_tags
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import mlflow_client, tracked_run
from tasks.workspace import open_workspace, row_dicts

CALIBRATION_TAG = "calibration_run_id"
"""Tag of a model version: the MLflow run of its calibration."""
CALIBRATION_FILE = "calibration.json"
FEW_CASES = 10


@dataclass(frozen=True)
class CalibrationRequest:
    """One row of `cases`, the checkpoint to run on it, what human labels look like, and the versions of the tables."""

    case: dict[str, Any]
    checkpoint: Path
    reference: HumanReference
    table_versions: dict[str, int]


@dataclass(frozen=True, eq=False)
class CalibrationOutcome:
    """A calibration that is kept: the map, what was expected against what was real, and the summary."""

    run_id: str
    calibration: Calibration
    pairs: pd.DataFrame
    summary: dict[str, float]
    picture: Path


def measure_case(request: CalibrationRequest, settings: Settings) -> list[Measured]:
    """Return the scores and the DSC of every class whose truth is known in the case, human labels and known absence."""
    workspace = open_workspace(settings)
    case, versions = request.case, request.table_versions
    known = trained_classes(read_metadata(request.checkpoint))
    labels = workspace.tables.labels(case_ids=[case["case_id"]], state="annotated", at_versions=versions)
    prediction = predict_case(workspace, case, request.checkpoint)
    image = case_image(workspace, case)
    rows = unwritten_rows(prediction.bits, image, known, case)
    scores = score_labels(rows, prediction, request.reference, case_quality(workspace, case, image, versions))
    found: dict[str, float | None] = {}
    for annotation, rows_of in labels.groupby("annotation", observed=True):
        truth = workspace.lake.open_bits(row_dicts(rows_of)[0], str(annotation)).read()
        for name in rows_of["class_name"][rows_of["class_name"].isin(known)]:
            channel = class_info(name).channel
            score = dice(get_channel(truth, channel), get_channel(prediction.bits, channel))
            found[str(name)] = None if np.isnan(score) else float(score)
    for name in case["tumour_free"]:
        if name in scores and name not in found:
            found[name] = None if scores[name].ml == 0 else 0.0
    return [
        Measured(str(case["case_id"]), str(case["split_group"]), scores[name], score) for name, score in found.items()
    ]


def measure_cases(
    cases: pd.DataFrame,
    checkpoint: Path,
    reference: HumanReference,
    table_versions: Mapping[str, int],
    settings: Settings,
) -> list[Measured]:
    """Return what `measure_case` does of all cases, in order; RuntimeError where a case cannot be measured."""
    requests = [CalibrationRequest(case, checkpoint, reference, dict(table_versions)) for case in row_dicts(cases)]
    results = map_cases(
        partial(measure_case, settings=settings.for_workers()),
        requests,
        settings,
        CaseProgress("calibrate", len(requests)),
    )
    done = require_all(
        results,
        lambda request: str(request.case["case_id"]),
        "give workers more memory or time, or calibrate without CTFACTORY_DASK_ADDRESS",
    )
    return [one for of_case in done for one in of_case]


def log_calibration(
    measured: Sequence[Measured],
    model: ModelVersion,
    settings: Settings,
    *,
    choice: SplitChoice,
    table_versions: Mapping[str, int],
    flow_run_id: str | None = None,
) -> CalibrationOutcome:
    """Fit the map, keep it in an MLflow run of its own with figures and a picture, and let the version name that run.

    The figures and the picture are of the cross-validation by patient; the map that is kept is fitted on all cases.
    """
    pairs = cross_validated(measured)
    made_with = {
        "model": model.uri,
        "held_out": choice.held_out_name if choice.only is None else f"{len(choice.only)} cases named",
        "table_versions": dict(table_versions),
        "cases": len({one.case_id for one in measured}),
        "prediction": prediction_facts(settings),
    }
    calibration = fit(measured, made_with)
    summary = {**calibration_figures(pairs), "patients": float(len({one.group for one in measured}))}
    if summary["patients"] < FEW_CASES:
        tell(f"{model.uri}: calibrated on {summary['patients']:.0f} patients only; label more held-out cases")
    tags = {
        "model": model.uri,
        "train_run_id": model.run_id,
        "flow_run_id": flow_run_id,
        "table_versions": json.dumps(dict(table_versions)),
    }
    folder = settings.workspace.absolute() / "calibrations" / f"v{model.version}"
    with tracked_run(settings, f"calibrate v{model.version}", kind="calibrate", tags=tags) as run_id:
        picture = reliability_plot(pairs, folder / "reliability.png", f"{model.uri}, cross-validated by patient")
        mlflow.log_metrics({name: value for name, value in summary.items() if np.isfinite(value)})
        mlflow.log_params({"split": choice.split, "held_out": made_with["held_out"], "cases": made_with["cases"]})
        mlflow.log_dict(calibration.to_dict(), CALIBRATION_FILE)
        mlflow.log_artifact(str(picture))
        with tempfile.TemporaryDirectory() as aside:
            _measured_table(measured).to_parquet(Path(aside) / "measured.parquet")
            pairs.to_parquet(Path(aside) / "cross_validated.parquet")
            class_summary(pairs).to_csv(Path(aside) / "classes.csv", index=False)
            mlflow.log_artifacts(aside)
    mlflow_client(settings).set_model_version_tag(model.name, str(model.version), CALIBRATION_TAG, run_id)
    return CalibrationOutcome(run_id, replace(calibration, run_id=run_id), pairs, summary, picture)


def load_calibration(version: ModelVersion, settings: Settings) -> Calibration | None:
    """Return the calibration of a version, None where it has none.

    It is told where the scans are predicted otherwise than those it was measured on.
    """
    run_id = version_tags(version, settings).get(CALIBRATION_TAG)
    if run_id is None:
        return None
    calibration = Calibration.from_dict(mlflow.artifacts.load_dict(f"runs:/{run_id}/{CALIBRATION_FILE}"), run_id)
    now, then = prediction_facts(settings), calibration.made_with.get("prediction", {})
    differ = sorted(name for name in now if now[name] != then.get(name))
    if differ:
        told = ", ".join(f"{name} {then.get(name)}, now {now[name]}" for name in differ)
        tell(f"{version.uri} was calibrated with {told}: expected DSC may be off; run `ctfactory calibrate` again")
    return calibration


def prediction_facts(settings: Settings) -> dict[str, Any]:
    """Return the settings that scores depend on."""
    return {
        "window_overlap": settings.window_overlap,
        "precision": settings.predict_precision or default_precision(settings.torch_device()),
        "test_time_variants": settings.test_time_variants,
    }


def calibration_figures(pairs: pd.DataFrame) -> dict[str, float]:
    """Return how well expected DSC agrees with real DSC: linear and rank correlation, mean absolute error, counts.

    pairs: of `cross_validated`. The correlations are of masks that are not empty, nan where nothing varies.
    """
    found = pairs[~pairs["empty"]]
    varies = found["expected"].nunique() > 1 and found["dsc"].nunique() > 1
    return {
        "pearson": float(found["expected"].corr(found["dsc"])) if varies else float("nan"),
        "spearman": float(found["expected"].rank().corr(found["dsc"].rank())) if varies else float("nan"),
        "mean_absolute_error": float((pairs["expected"] - pairs["dsc"]).abs().mean()),
        "masks": float(len(found)),
        "empty_masks": float(len(pairs) - len(found)),
        "cases": float(pairs["case_id"].nunique()),
    }


def class_summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return per class: cases, mean of expected and of real DSC, mean absolute error."""
    off = pairs.assign(error=(pairs["expected"] - pairs["dsc"]).abs())
    table = off.groupby("class_name").agg(
        cases=("dsc", "size"), expected=("expected", "mean"), real=("dsc", "mean"), error=("error", "mean")
    )
    order = sorted(table.index, key=lambda name: class_info(str(name)).index)
    return table.loc[order].reset_index()


def _measured_table(measured: Sequence[Measured]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "case_id": one.case_id,
                "split_group": one.group,
                "class_name": one.scores.class_name,
                "dsc": float("nan") if one.dsc is None else one.dsc,
                "empty": one.empty,
                "scores": json.dumps(one.scores.to_dict()),
            }
            for one in measured
        ]
    )


measure_cases_task = as_task(measure_cases, "measure-cases", tags=["gpu"])
log_calibration_task = as_task(log_calibration, "log-calibration")
