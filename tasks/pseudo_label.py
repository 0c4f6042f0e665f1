"""Pseudo-label a cohort: predict, clean, write the masks beside the scan, commit label rows, export, draw."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from catalog.errors import LakeDamage
from datasets_registry.class_rules import rule_switches
from datasets_registry.taxonomy import class_info
from imaging.overlay import overlay_png
from imaging.volume import Volume
from models.checkpoint import members, read_metadata
from models.infer import Prediction
from models.infer_network import default_precision
from models.licence import LICENCE
from models.postprocess import rules_digest
from tasks.case_rows import label_rows
from tasks.export import export_case
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.prediction import case_image, predict_case, trained_classes
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.registry import ModelVersion, fetch_checkpoint
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace, row_dicts

PSEUDO_LABELLER_VERSION = "2"
"""Part of every annotation's name: raise it when prediction changes; cleaning has a digest of its own there."""

Outcome = Literal["labelled", "unchanged", "failed"]


@dataclass(frozen=True)
class PseudoLabelRequest:
    """One case to label, by which model version, for which classes, exported where."""

    case: dict[str, Any]
    checkpoint: Path
    model: ModelVersion
    classes: tuple[str, ...]
    export_folder: Path
    flow_run_id: str | None = None


@dataclass(frozen=True)
class PseudoLabelOutcome:
    """What became of one case, and the files made for it."""

    case_id: str
    outcome: Outcome
    classes: tuple[str, ...] = ()
    mean_probability: float | None = None
    segmentation: Path | None = None
    overlay: Path | None = None
    message: str = ""


def annotation_name(model: ModelVersion, checkpoint: Path, settings: Settings) -> str:
    """Return the name under which this version's masks are stored: equal weights and rules give an equal name."""
    precision = settings.predict_precision or default_precision(settings.torch_device())
    digest = hashlib.sha256()
    for file in members(checkpoint):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    rules = rules_digest(rule_switches(settings.cleaning), trained_classes(read_metadata(checkpoint)))
    digest.update(f"{PSEUDO_LABELLER_VERSION} {settings.window_overlap} {precision} {rules}".encode())
    return f"pseudo-v{model.version}-{digest.hexdigest()[:8]}"


def pseudo_label_case(request: PseudoLabelRequest, settings: Settings) -> PseudoLabelOutcome:
    """Label one case; classes a human annotated there are left alone, and a second call does nothing.

    The outcome is `failed`, with the reason, when the scan cannot be predicted; the others of the batch go on.
    """
    workspace = open_workspace(settings)
    case, case_id = request.case, str(request.case["case_id"])
    annotation = annotation_name(request.model, request.checkpoint, settings)
    human = set(workspace.tables.labels(case_ids=[case_id], state="annotated")["class_name"])
    classes = tuple(name for name in request.classes if name not in human)
    target = request.export_folder / str(case["native_id"])
    done = workspace.tables.labels(case_ids=[case_id], annotation=annotation)
    segmentation, overlay = target / "segmentation.nii.gz", target / "overlay.png"
    if set(classes) <= set(done["class_name"]) and segmentation.exists() and overlay.exists():
        return PseudoLabelOutcome(case_id, "unchanged", classes, segmentation=segmentation, overlay=overlay)
    try:
        prediction = predict_case(workspace, case, request.checkpoint, classes)
        image = case_image(workspace, case)
    except (LakeDamage, ValueError) as problem:
        return PseudoLabelOutcome(case_id, "failed", message=str(problem))
    _commit(workspace, request, annotation, prediction, image, classes)
    export_case(case, prediction.bits, classes, request.export_folder, _about(request, case))
    overlay_png(
        image,
        prediction.bits,
        {class_info(name).channel: (class_info(name).title, class_info(name).colour) for name in classes},
        overlay,
        title=f"{case_id}, {request.model.uri}",
    )
    found = [prediction.mean_prob[name] for name in classes if not math.isnan(prediction.mean_prob[name])]
    mean = sum(found) / len(found) if found else None
    message = "; ".join(prediction.scores.remarks)
    return PseudoLabelOutcome(case_id, "labelled", classes, mean, segmentation, overlay, message)


def _about(request: PseudoLabelRequest, case: dict[str, Any]) -> dict[str, Any]:
    return {
        "case_id": case["case_id"],
        "model": request.model.uri,
        "state": "pseudo",
        "scan_licence": case["licence"],
        "model_licence": read_metadata(request.checkpoint).extra.get(LICENCE),
        "note": "made by a model, not by an annotator",
    }


def _commit(
    workspace: Workspace,
    request: PseudoLabelRequest,
    annotation: str,
    prediction: Prediction,
    image: Volume,
    classes: Sequence[str],
) -> None:
    """Write the masks under their own name beside the scan, then make them visible with one commit."""
    case = request.case
    manifest = workspace.lake.write_annotation(
        case["path"], annotation, prediction.bits, {"model": request.model.uri, "classes": list(classes)}
    )
    provenance = {
        "state": "pseudo",
        "label_origin": "model",
        "model_name": request.model.name,
        "model_version": str(request.model.version),
        "mlflow_run_id": request.model.run_id,
        "review_state": "pending",
        "flow_run_id": request.flow_run_id,
        "manifest": manifest.to_json(),
    }

    def provenance_of(name: str) -> dict[str, Any]:
        quality = prediction.mean_prob[name]
        return {**provenance, "quality_score": None if math.isnan(quality) else quality}

    rows = label_rows(
        prediction.bits,
        image,
        classes,
        case={"case_id": case["case_id"], "ingest_key": case["ingest_key"]},
        annotation=annotation,
        sampled_voxels=workspace.settings.sampled_voxels,
        provenance=provenance_of,
    )
    workspace.tables.commit_labels(rows)


def plan_cohort(
    cohort: str,
    model: ModelVersion,
    settings: Settings,
    *,
    classes: Sequence[str] | None = None,
    flow_run_id: str | None = None,
) -> list[PseudoLabelRequest]:
    """Return one request per case of `cohort`, a data set of the lake.

    classes: None takes all the model was trained on. Raises LookupError for a cohort that is not in the lake, KeyError
    for an unknown class and ValueError for a class the model does not have.
    """
    workspace = open_workspace(settings)
    cases = workspace.tables.cases(dataset=cohort)
    if cases.empty:
        there = sorted(set(workspace.tables.cases()["dataset"]))
        raise LookupError(f"cohort {cohort!r} has no case in the lake, which holds {there}; ingest it first")
    checkpoint = fetch_checkpoint(model, settings)
    known = trained_classes(read_metadata(checkpoint))
    chosen = tuple(known if classes is None else classes)
    for name in chosen:
        class_info(name)
        if name not in known:
            raise ValueError(f"{model.uri} was not trained on {name!r}; it was trained on {', '.join(known)}")
    export_folder = settings.workspace.absolute() / "exports" / cohort / f"v{model.version}"
    return [
        PseudoLabelRequest(case, checkpoint, model, chosen, export_folder, flow_run_id) for case in row_dicts(cases)
    ]


def pseudo_label_batch(
    requests: Sequence[PseudoLabelRequest], settings: Settings, progress: CaseProgress | None = None
) -> list[PseudoLabelOutcome]:
    """Return what became of each case, in order."""
    results = map_cases(partial(pseudo_label_case, settings=settings.for_workers()), list(requests), settings, progress)
    return [_failed(item) if isinstance(item, Lost) else item for item in results]


def pseudo_label_progress(cases: int) -> CaseProgress:
    """Return the counter of a cohort, over all its batches."""
    return CaseProgress("pseudo-label", cases, refused=lambda outcome: outcome.outcome == "failed")


def _failed(lost: Lost[PseudoLabelRequest]) -> PseudoLabelOutcome:
    case_id = str(lost.case.case["case_id"])
    return PseudoLabelOutcome(
        case_id, "failed", message=f"{lost.reason}: {lost.found}, in the last of {lost.tries} tries"
    )


pseudo_label_batch_task = as_task(pseudo_label_batch, "pseudo-label-batch", retries=1, tags=["gpu"])
