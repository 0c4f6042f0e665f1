"""Prediction beside truth on one held-out case of each data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from datasets_registry.taxonomy import class_info
from imaging.overlay import overlay_png
from tasks.prediction import case_image, predict_case
from tasks.prefect_task import as_task
from tasks.settings import Settings
from tasks.workspace import open_workspace, row_dicts


def draw_evaluation(cases: pd.DataFrame, checkpoint: Path, settings: Settings, folder: Path) -> list[Path]:
    """Draw the first case of each data set of `cases` and return the PNG files, one a data set with human labels.

    Filled: the prediction; lines: the annotators' masks. Only classes that were annotated in the case are shown.
    """
    workspace = open_workspace(settings)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for case in row_dicts(cases.sort_values("case_id").drop_duplicates("dataset")):
        labels = row_dicts(workspace.tables.labels(case_ids=[case["case_id"]], state="annotated"))
        if not labels:
            continue
        prediction = predict_case(workspace, case, checkpoint)
        truth = workspace.lake.open_bits(labels[0], labels[0]["annotation"]).read()
        shown = [class_info(row["class_name"]) for row in labels]
        pictures.append(
            overlay_png(
                case_image(workspace, case),
                prediction.bits,
                {info.channel: (info.title, info.colour) for info in shown},
                folder / f"{case['dataset']}.png",
                title=str(case["case_id"]),
                second_bits=truth,
            )
        )
    return pictures


draw_evaluation_task = as_task(draw_evaluation, "draw-evaluation", tags=["model"])
