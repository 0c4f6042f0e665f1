"""Evaluate a model version on cases it has not seen: DSC and NSD per class, lesion detection per patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import get_channel
from imaging.metrics import dice, surface_dice
from models.checkpoint import read_metadata
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.prediction import predict_case, trained_classes
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.settings import Settings
from tasks.workspace import open_workspace, row_dicts

SCORE_COLUMNS = ("case_id", "dataset", "class_name", "dsc", "nsd", "truth_ml", "predicted_ml", "known_absent")


@dataclass(frozen=True)
class CaseRequest:
    """One row of the `cases` table and the checkpoint to run on it."""

    case: dict[str, Any]
    checkpoint: Path


def evaluate_case(request: CaseRequest, settings: Settings) -> list[dict[str, Any]]:
    """Return one score row for every class whose truth is known in the case (SCORE_COLUMNS).

    Only classes the model was trained on are scored. Known are the annotated ones and, for detection alone, the
    lesions the data set's source says nobody has (`known_absent`: no DSC, an empty truth). DSC and NSD are
    NaN where truth and prediction are both empty.
    """
    workspace = open_workspace(settings)
    case = request.case
    prediction = predict_case(workspace, case, request.checkpoint)
    known = trained_classes(read_metadata(request.checkpoint))
    x, y, z = (float(value) for value in case["spacing_mm"])
    voxel_ml = x * y * z / 1000.0
    labels = workspace.tables.labels(case_ids=[case["case_id"]], state="annotated")
    rows: list[dict[str, Any]] = []
    if len(labels):
        first = row_dicts(labels)[0]
        truth = workspace.lake.open_bits(first, first["annotation"]).read()
        for name in labels["class_name"][labels["class_name"].isin(known)]:
            channel = class_info(name).channel
            truth_mask, mask = get_channel(truth, channel), get_channel(prediction.bits, channel)
            rows.append(
                {
                    "class_name": name,
                    "dsc": dice(truth_mask, mask),
                    "nsd": surface_dice(truth_mask, mask, (x, y, z), settings.nsd_tolerance_mm),
                    "truth_ml": float(truth_mask.sum()) * voxel_ml,
                    "predicted_ml": float(mask.sum()) * voxel_ml,
                    "known_absent": False,
                }
            )
    annotated = {row["class_name"] for row in rows}
    rows += [
        {
            "class_name": name,
            "dsc": float("nan"),
            "nsd": float("nan"),
            "truth_ml": 0.0,
            "predicted_ml": float(get_channel(prediction.bits, class_info(name).channel).sum()) * voxel_ml,
            "known_absent": True,
        }
        for name in case["tumour_free"]
        if name not in annotated and name in known
    ]
    return [{"case_id": case["case_id"], "dataset": case["dataset"], **row} for row in rows]


def evaluate_cases(cases: pd.DataFrame, checkpoint: Path, settings: Settings) -> pd.DataFrame:
    """Return the scores of all cases, one row a case and class (SCORE_COLUMNS)."""
    requests = [CaseRequest(case, checkpoint) for case in row_dicts(cases)]
    results = map_cases(
        partial(evaluate_case, settings=settings.for_workers()),
        requests,
        settings,
        CaseProgress("evaluate", len(requests)),
    )
    lost = [item for item in results if isinstance(item, Lost)]
    if lost:
        raise RuntimeError(
            f"{lost[0].case.case['case_id']}: {lost[0].found} ({lost[0].reason}, {lost[0].tries} tries), and "
            f"{len(lost) - 1} more; a score over the other cases would not be the model's: give workers more memory or "
            "time, or evaluate without CTFACTORY_DASK_ADDRESS"
        )
    rows = [row for rows in results if not isinstance(rows, Lost) for row in rows]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def class_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean DSC and NSD and the number of scored cases per data set and class, in class order."""
    scored = scores[~scores["known_absent"]]
    table = (
        scored.groupby(["dataset", "class_name"])
        .agg(cases=("dsc", "size"), scored=("dsc", "count"), dsc=("dsc", "mean"), nsd=("nsd", "mean"))
        .reset_index()
    )
    order = {info.name: info.index for info in all_classes()}
    table = table.assign(order=table["class_name"].map(order)).sort_values(["dataset", "order"])
    return table.drop(columns="order").reset_index(drop=True)


def detection_table(scores: pd.DataFrame, min_ml: float) -> pd.DataFrame:
    """Return patient-level sensitivity and specificity per lesion class.

    A patient is positive in truth when the class has any voxel, and predicted positive from `min_ml` ml on.
    Sensitivity is NaN without a positive patient, specificity without a negative one.
    """
    rows = []
    lesions = [info.name for info in all_classes() if info.is_lesion]
    for name in lesions:
        of_class = scores[scores["class_name"] == name]
        if of_class.empty:
            continue
        positive = (of_class["truth_ml"] > 0).to_numpy()
        predicted = (of_class["predicted_ml"] >= min_ml).to_numpy()
        rows.append(
            {
                "class_name": name,
                "positives": int(positive.sum()),
                "negatives": int((~positive).sum()),
                "sensitivity": float(predicted[positive].mean()) if positive.any() else float("nan"),
                "specificity": float((~predicted[~positive]).mean()) if (~positive).any() else float("nan"),
            }
        )
    return pd.DataFrame(rows, columns=["class_name", "positives", "negatives", "sensitivity", "specificity"])


def summary_metrics(scores: pd.DataFrame, min_ml: float) -> dict[str, float]:
    """Return the figures the gates look at; a figure nothing was measured for is left out.

    mean_organ_dsc/nsd: mean over organ classes (lesions left out) of each class's mean over all its scored cases, so
    that a class annotated in many cases does not outweigh a rare one.
    """
    organs = [info.name for info in all_classes() if not info.is_lesion]
    per_class = scores[scores["class_name"].isin(organs)].groupby("class_name")[["dsc", "nsd"]].mean()
    detection = detection_table(scores, min_ml)
    figures = {
        "mean_organ_dsc": per_class["dsc"].mean(),
        "mean_organ_nsd": per_class["nsd"].mean(),
        "worst_organ_dsc": per_class["dsc"].min(),
        "mean_lesion_dsc": scores[~scores["class_name"].isin(organs)].groupby("class_name")["dsc"].mean().mean(),
        "sensitivity": detection["sensitivity"].mean(),
        "specificity": detection["specificity"].mean(),
    }
    return {name: float(value) for name, value in figures.items() if np.isfinite(value)}


evaluate_cases_task = as_task(evaluate_cases, "evaluate-cases", tags=["model"])
