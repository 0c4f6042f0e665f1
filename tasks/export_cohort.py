"""Export cases of the lake: the labels that count, merged over their annotations, under the licence they inherit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from catalog.errors import LakeDamage
from catalog.lake_read import StoredArray
from imaging.bits import Bits
from imaging.errors import BadInput
from tasks.export import export_case
from tasks.export_plan import ExportRequest, label_state
from tasks.export_staging import exported_whole
from tasks.export_subject import Origin
from tasks.licences import LabelLicence, LicenceRefused, licence_of
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.prediction import case_image
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

Outcome = Literal["exported", "unchanged", "left_out", "refused", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("exported", "unchanged", "left_out", "refused", "failed")


@dataclass(frozen=True)
class ExportOutcome:
    """What became of one case. message: why it was refused or failed, or what was left out of it."""

    case_id: str
    outcome: Outcome
    classes: tuple[str, ...] = ()
    folder: Path | None = None
    message: str = ""


def export_one(request: ExportRequest, settings: Settings) -> ExportOutcome:
    """Export one case; one whose files are there as they would be written is left alone.

    The outcome is `refused` where the profile does not allow its licence, `failed` where it cannot be read or written,
    `left_out` where all its labels wait for a review. The others of the batch go on.
    """
    case_id = str(request.case["case_id"])
    waiting = ""
    if request.held_back:
        waiting = f"waits for a review: {', '.join(request.held_back)} (--include review takes them)"
    if not request.labels:
        return ExportOutcome(case_id, "left_out", message=waiting)
    classes = tuple(str(row["class_name"]) for row in request.labels)
    target = request.folder / str(request.case["native_id"])
    if exported_whole(target, request.key):
        return ExportOutcome(case_id, "unchanged", classes, target, waiting)
    workspace = open_workspace(settings)
    try:
        origins = {str(row["class_name"]): _origin(row, request.case) for row in request.labels}
        export_case(
            request.case,
            merged_bits(workspace, request.labels),
            classes,
            request.folder,
            _about(request),
            formats=request.plan.formats,
            profile=request.plan.profile,
            source_series=request.source_files or request.plan.source,
            image=case_image(workspace, request.case),
            origins=origins,
            keep_patient=request.plan.keep_patient,
        )
    except LicenceRefused as problem:
        return ExportOutcome(case_id, "refused", classes, message=str(problem))
    except (LakeDamage, BadInput, ValueError, OSError) as problem:
        return ExportOutcome(case_id, "failed", classes, message=str(problem))
    return ExportOutcome(case_id, "exported", classes, target, waiting)


def merged_bits(workspace: Workspace, labels: Sequence[Mapping[str, Any]]) -> Bits:
    """Return the class bits (W, X, Y, Z) of label rows of one case, each class from its own annotation."""
    merged: Bits | None = None
    for annotation in dict.fromkeys(str(row["annotation"]) for row in labels):
        rows = [row for row in labels if row["annotation"] == annotation]
        stored: StoredArray = workspace.lake.open_bits(rows[0], annotation)
        bits = stored.read()
        wanted = np.zeros((max(len(bits), 1 + max(int(row["channel"]) for row in labels) // 32),), dtype=np.uint32)
        for row in rows:
            wanted[int(row["channel"]) // 32] |= np.uint32(1) << np.uint32(int(row["channel"]) % 32)
        if merged is None or len(merged) < len(wanted):
            widened = np.zeros((len(wanted), *bits.shape[1:]), dtype=np.uint32)
            if merged is not None:
                widened[: len(merged)] = merged
            merged = widened
        for word in range(len(bits)):
            merged[word] |= bits[word] & wanted[word]
    if merged is None:
        raise ValueError("no label rows: nothing to merge")
    return merged


def _origin(row: Mapping[str, Any], case: Mapping[str, Any]) -> Origin:
    model = None if row["model_name"] is None else f"models:/{row['model_name']}/{row['model_version']}"
    return Origin(label_state(row), model, row_licence(row, case))


def row_licence(row: Mapping[str, Any], case: Mapping[str, Any]) -> LabelLicence:
    """Return the licence of a label row: what it states, else of a human label its scan's, of a model's: not known."""
    scan = licence_of(case["licence"], case["non_commercial"])
    if row["licence"] is None and row["model_name"] is None:
        return scan
    own = licence_of(row["licence"], row["non_commercial"], what=f"{row['class_name']}, inherited with its model")
    return LabelLicence(own.licence, own.non_commercial, (*scan.sources, *own.sources))


def _about(request: ExportRequest) -> dict[str, Any]:
    return {
        "export_key": request.key,
        "scan_licence": request.case["licence"],
        "held_back": list(request.held_back),
        "note": "state says of each class who made it: annotated and reviewed by people, pseudo by a model",
    }


def export_batch(
    requests: Sequence[ExportRequest], settings: Settings, progress: CaseProgress | None = None
) -> list[ExportOutcome]:
    """Return what became of each case, in order."""
    results = map_cases(partial(export_one, settings=settings.for_workers()), list(requests), settings, progress)
    return [
        ExportOutcome(str(item.case.case["case_id"]), "failed", message=f"{item.reason}: {item.found}")
        if isinstance(item, Lost)
        else item
        for item in results
    ]


def export_progress(cases: int) -> CaseProgress:
    """Return the counter of an export, over all its batches."""
    return CaseProgress("export", cases, refused=lambda outcome: outcome.outcome in ("refused", "failed"))


export_batch_task = as_task(export_batch, "export-batch", retries=1)
