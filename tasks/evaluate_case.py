"""One case of an evaluation: masks, or those kept, against what annotators drew."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasets_registry.taxonomy import class_info, class_names, same_finding
from imaging.bits import Bits, empty_bits, get_channel, set_channel, widened
from imaging.metrics import match_lesions, score_bits
from models.checkpoint import read_metadata
from models.infer_progress import PredictionProgress
from tasks.evaluation_store import Cost, EvaluationStore, Masks, prediction_key, score_key
from tasks.prediction import predict_case, tell_progress, trained_classes
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace, row_dicts

NOT_KNOWN = "not known"
"""Stratum of a case whose row does not say."""

SPACING_FLAG = "spacing_unreliable"
"""Beginning of the flag of a case whose file states another spacing than the scan had."""

FIGURES = ("dsc", "nsd", "hd95_mm", "asd_mm", "volume_error_ml")
SCORE_COLUMNS = (
    "case_id",
    "dataset",
    "class_name",
    *FIGURES,
    "truth_ml",
    "predicted_ml",
    "known_absent",
    "detected_ml",
    "lesions",
    "lesions_found",
    "false_lesions",
    "largest_lesion_ml",
    "lesion_score",
    "patient",
    "role",
    "slice_mm",
    "contrast",
    "scanner",
)
"""Columns of a score row: contract of `scores.parquet`, read by promotion. See `evaluate_case`."""

LESION_COLUMNS = ("case_id", "dataset", "patient", "class_name", "drawn_by", "ml", "matched", "score")


@dataclass(frozen=True)
class CaseRequest:
    """One row of the `cases` table, the checkpoint to run on it, and the digest of its weights."""

    case: dict[str, Any]
    checkpoint: Path
    weights: str


@dataclass(frozen=True)
class CaseScores:
    """Score rows of a case (SCORE_COLUMNS), its lesions (LESION_COLUMNS) and what its prediction took.

    reused: the scores were kept from an earlier evaluation, and nothing was computed.
    """

    rows: list[dict[str, Any]]
    lesions: list[dict[str, Any]]
    cost: dict[str, Any]
    reused: bool = False


def evaluate_case(request: CaseRequest, settings: Settings) -> CaseScores:
    """Return one score row for every class whose truth is known in the case.

    Only classes the model was trained on are scored. Known are the annotated ones and, for detection alone, the
    lesions the data set's source says nobody has (`known_absent`: an empty truth, and no figure of overlap). Figures
    are NaN where they are undefined (see `MaskScores`).

    Of a lesion class: detected_ml is the volume predicted as it or as a class that means the same finding
    (`same_finding`); lesions, lesions_found, false_lesions count connected parts matched by overlap;
    largest_lesion_ml is the largest one's true volume. lesion_score is the mean probability inside the detected mask,
    0 without one: the score of the ROC over patients. A single predicted lesion's score is its volume in ml.
    """
    workspace, store = open_workspace(settings), EvaluationStore(settings)
    masks_key = prediction_key(request.weights, request.case, settings)
    labels = annotated_labels(workspace, request.case)
    manifests = dict(zip(labels["class_name"], labels["manifest"], strict=True))
    key = score_key(masks_key, manifests, list(request.case["tumour_free"]), settings)
    kept = store.scores(key)
    if kept is not None:
        return CaseScores(kept["rows"], kept["lesions"], kept["cost"], reused=True)
    masks = case_masks(request, settings)
    truth = truth_bits(workspace, labels, masks.bits.shape[1:])
    scored = _scored(request, list(labels["class_name"]), truth, masks, settings)
    store.keep_scores(key, {"rows": scored.rows, "lesions": scored.lesions, "cost": scored.cost})
    return scored


def case_masks(request: CaseRequest, settings: Settings) -> Masks:
    """Return the masks of a case by the request's weights: those kept, or predicted now and kept."""
    store, key = EvaluationStore(settings), prediction_key(request.weights, request.case, settings)
    kept = store.masks(key)
    if kept is not None:
        return kept
    last: list[PredictionProgress] = []

    def report(progress: PredictionProgress) -> None:
        last[:] = [progress]
        tell_progress(progress)

    started = time.perf_counter()
    prediction = predict_case(open_workspace(settings), request.case, request.checkpoint, report=report)
    cost = Cost(time.perf_counter() - started, last[-1].windows, last[-1].peak_gb, last[-1].device)
    masks = Masks(prediction.bits, prediction.mean_prob, cost)
    store.keep_masks(key, masks)
    return masks


def annotated_labels(workspace: Workspace, case: Mapping[str, Any]) -> pd.DataFrame:
    """Return the label rows of what annotators drew in a case, one a class: of two, the newer."""
    labels = workspace.tables.labels(case_ids=[case["case_id"]], state="annotated")
    newest = labels.sort_values("committed_at").drop_duplicates("class_name", keep="last")
    return newest.sort_values("channel").reset_index(drop=True)


def truth_bits(workspace: Workspace, labels: pd.DataFrame, shape: tuple[int, ...]) -> Bits:
    """Return the annotated masks of a case, (W, X, Y, Z), from as many annotations as the label rows name."""
    if labels["annotation"].nunique() == 1:
        first = row_dicts(labels)[0]
        return widened(workspace.lake.open_bits(first, first["annotation"]).read(), len(class_names()))
    truth = empty_bits(shape, len(class_names()))
    for annotation, rows in labels.groupby("annotation"):
        bits = workspace.lake.open_bits(row_dicts(rows)[0], str(annotation)).read()
        for channel in rows["channel"]:
            set_channel(truth, int(channel), get_channel(bits, int(channel)))
    return truth


def _scored(request: CaseRequest, annotated: list[str], truth: Bits, masks: Masks, settings: Settings) -> CaseScores:
    case = request.case
    known = trained_classes(read_metadata(request.checkpoint))
    drawn = [name for name in annotated if name in known]
    absent = [name for name in case["tumour_free"] if name in known and name not in annotated]
    x, y, z = (float(value) for value in case["spacing_mm"])
    channels = [class_info(name).channel for name in drawn]
    found = score_bits(truth, widened(masks.bits, len(class_names())), channels, (x, y, z), settings.nsd_tolerance_mm)
    about = {"case_id": case["case_id"], "dataset": case["dataset"]}
    strata = strata_of(case)
    rows, lesions = [], []
    for name in (*drawn, *absent):
        channel = class_info(name).channel
        figures = {figure: float("nan") for figure in FIGURES} | {"truth_ml": 0.0}
        if name in drawn:
            figures = asdict(found[channel])
        predicted = get_channel(masks.bits, channel)
        figures["predicted_ml"] = float(predicted.sum()) * x * y * z / 1000.0
        detection = _no_lesion(figures["predicted_ml"])
        parts: list[dict[str, Any]] = []
        if class_info(name).is_lesion:
            mask = get_channel(truth, channel) if name in drawn else np.zeros(predicted.shape, dtype=bool)
            detection, parts = _detected(name, mask, masks, (x, y, z), settings)
        rows.append({**about, "class_name": name, **figures, "known_absent": name in absent, **detection, **strata})
        lesions += [{**about, "patient": strata["patient"], "class_name": name, **part} for part in parts]
    return CaseScores(rows, lesions, {"case_id": case["case_id"], **asdict(masks.cost)})


def _no_lesion(predicted_ml: float) -> dict[str, Any]:
    nan = float("nan")
    return {
        "detected_ml": predicted_ml,
        "lesions": 0,
        "lesions_found": 0,
        "false_lesions": 0,
        "largest_lesion_ml": nan,
        "lesion_score": nan,
    }


def _detected(
    name: str, truth: np.ndarray, masks: Masks, spacing_mm: tuple[float, float, float], settings: Settings
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the detection columns of a lesion class, and one row a lesion."""
    names = same_finding(name)
    predicted = np.logical_or.reduce([get_channel(masks.bits, class_info(one).channel) for one in names])
    matches = match_lesions(truth, predicted, spacing_mm, min_ml=settings.lesion_min_ml)
    detected_ml = float(predicted.sum()) * float(np.prod(spacing_mm)) / 1000.0
    probabilities = [masks.mean_prob.get(one, float("nan")) for one in names]
    score = float(np.nanmax(probabilities)) if detected_ml > 0 and np.isfinite(probabilities).any() else 0.0
    parts = [
        {"drawn_by": "annotator", "ml": one.ml, "matched": one.found, "score": float("nan")} for one in matches.truth
    ]
    parts += [
        {"drawn_by": "model", "ml": one.ml, "matched": not one.false_positive, "score": one.ml}
        for one in matches.predicted
    ]
    columns = {
        "detected_ml": detected_ml,
        "lesions": matches.lesions,
        "lesions_found": matches.lesions_found,
        "false_lesions": matches.false_lesions,
        "largest_lesion_ml": max((one.ml for one in matches.truth), default=0.0),
        "lesion_score": score,
    }
    return columns, parts


def strata_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """Return what scores are told apart by; `not known` where a `cases` row does not say.

    patient: the split group, which scans of one patient share. slice_mm: distance of the slices of the scan as read,
    NaN where the spacing in its file is known to be wrong.
    """
    affine = np.asarray(case["original_affine"], dtype=float).reshape(4, 4)[:3, :3]
    wrong = any(str(flag).startswith(SPACING_FLAG) for flag in case["flags"])
    through = int(np.argmax(np.abs(affine[2] / np.linalg.norm(affine, axis=0))))
    return {
        "patient": str(case["split_group"]),
        "role": str(case["role"]),
        "slice_mm": float("nan") if wrong else float(np.linalg.norm(affine[:, through])),
        "contrast": str(case.get("contrast") or NOT_KNOWN),
        "scanner": str(case.get("scanner") or NOT_KNOWN),
    }
