"""Label rows of pseudo-labels: what the masks are, how they scored, what was decided, who made them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from catalog import schema
from imaging.scan_quality import ScanQuality
from imaging.volume import Volume
from models.infer import Prediction
from tasks.case_rows import label_rows
from tasks.decide import Decision, decide
from tasks.label_scores import LabelScores, score_labels
from tasks.pseudo_label_plan import LabelRun, PseudoLabelRequest

DECISIONS = ("accept", "review", "reject")


def judged_rows(
    run: LabelRun,
    request: PseudoLabelRequest,
    prediction: Prediction,
    image: Volume,
    quality: ScanQuality,
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the `labels` rows of one case with scores and decisions; their `manifest` is still to be filled in.

    prediction: cleaned. image: HU on the same grid. classes: to give rows to.
    """
    rows = label_rows(
        prediction.bits,
        image,
        classes,
        case={"case_id": request.case_id, "ingest_key": request.case["ingest_key"]},
        annotation=run.annotation(classes),
        sampled_voxels=run.settings.sampled_voxels,
        provenance=lambda _: _provenance(run, request),
    )
    scores = score_labels(rows, prediction, run.reference, quality, independent=request.independent is not False)
    for row in rows:
        name = str(row["class_name"])
        row |= _judged(scores[name], decide(scores[name], run.calibration, quality, run.bars))
        row["cleaning"] = json.dumps(_cleaning(prediction, name))
    return rows


def rejudged_rows(
    run: LabelRun, rows: Sequence[Mapping[str, Any]], quality: ScanQuality, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return rows like those of an earlier annotation of the same masks, decided by the calibration and bars of now.

    rows: of the `labels` table, with their scores. Their `manifest` is still to be filled in.
    """
    again = []
    for row in rows:
        kept = {name: row[name] for name in schema.LABELS if name not in schema.FILLED_IN}
        scores = stored_scores(str(row["scores"]))
        decided = decide(scores, run.calibration, quality, run.bars)
        told = {"annotation": run.annotation(classes), "flow_run_id": run.flow_run_id}
        again.append({**kept, **told, **_judged(scores, decided)})
    return again


def stored_scores(text: str) -> LabelScores:
    """Return the scores that a label row keeps as JSON."""
    values = json.loads(text)
    return LabelScores(**{**values, "flags": tuple(values["flags"])})


def _provenance(run: LabelRun, request: PseudoLabelRequest) -> dict[str, Any]:
    return {
        "state": "pseudo",
        "label_origin": "model",
        "model_name": run.teacher.name,
        "model_version": run.teacher.version,
        "mlflow_run_id": run.teacher.run_id,
        "independent": request.independent,
        "licence": request.licence.licence,
        "non_commercial": request.licence.non_commercial,
        "review_state": "pending",
        "flow_run_id": run.flow_run_id,
    }


def _judged(scores: LabelScores, decision: Decision) -> dict[str, Any]:
    return {
        "quality_score": scores.mean_prob,
        "scores": json.dumps(_finite(asdict(scores)), sort_keys=True),
        "expected_dsc": decision.expected_dsc,
        "decision": decision.decision,
        "reason": decision.reason,
    }


def _finite(value: Any) -> Any:
    """Return a value with None for what is no number: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cleaning(prediction: Prediction, name: str) -> list[dict[str, Any]]:
    """Return one entry a rule that changed the class; [] where none did."""
    if prediction.cleaned is None:
        return []
    return list(prediction.cleaned.record.get(name, ()))
