"""Prediction beside truth: one case of each data set, and the cases that went worst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from datasets_registry.taxonomy import class_info
from imaging.overlay import overlay_png
from tasks.evaluate_case import CaseRequest, annotated_labels, case_masks, truth_bits
from tasks.prediction import case_image
from tasks.prefect_task import as_task
from tasks.report import Picture
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace, row_dicts

WORST = 4
"""Cases drawn of those with the lowest DSC, each once, for its worst class."""


def draw_evaluation(
    cases: pd.DataFrame, scores: pd.DataFrame, checkpoint: Path, weights: str, settings: Settings, folder: Path
) -> list[Picture]:
    """Draw the first case of each data set with all its annotated classes, and the worst cases with one class each.

    Filled: the prediction (as kept by the evaluation); lines: the annotators' masks. The pictures are `<data set>.png`
    and `worst_<place>.png`.
    """
    workspace = open_workspace(settings)
    folder.mkdir(parents=True, exist_ok=True)
    by_id = {row["case_id"]: row for row in row_dicts(cases)}
    pictures = []
    for case_id in cases.sort_values("case_id").drop_duplicates("dataset")["case_id"]:
        request = CaseRequest(by_id[case_id], checkpoint, weights)
        path = folder / f"{by_id[case_id]['dataset']}.png"
        pictures.append(_draw(workspace, request, None, path, str(case_id)))
    for place, row in enumerate(worst_cases(scores), start=1):
        title = class_info(row["class_name"]).title
        caption = f"{row['case_id']}, {title}: DSC {row['dsc']:.3f}, place {place} from below"
        request = CaseRequest(by_id[row["case_id"]], checkpoint, weights)
        pictures.append(_draw(workspace, request, [row["class_name"]], folder / f"worst_{place}.png", caption))
    return pictures


def worst_cases(scores: pd.DataFrame, number: int = WORST) -> list[dict[str, Any]]:
    """Return case_id, class_name and dsc of the cases with the lowest DSC in any class, the lowest first."""
    scored = scores.dropna(subset=["dsc"]).sort_values(["dsc", "case_id", "class_name"], kind="stable")
    lowest = scored.drop_duplicates("case_id").head(number)
    return row_dicts(lowest[["case_id", "class_name", "dsc"]])


def _draw(
    workspace: Workspace, request: CaseRequest, classes: Sequence[str] | None, path: Path, caption: str
) -> Picture:
    masks = case_masks(request, workspace.settings)
    labels = annotated_labels(workspace, request.case)
    truth = truth_bits(workspace, labels, masks.bits.shape[1:])
    shown = [class_info(name) for name in classes or labels["class_name"]]
    overlay_png(
        case_image(workspace, request.case),
        masks.bits,
        {info.channel: (info.title, info.colour) for info in shown},
        path,
        title=caption,
        second_bits=truth,
    )
    return Picture(path, caption)


draw_evaluation_task = as_task(draw_evaluation, "draw-evaluation", tags=["model"])
