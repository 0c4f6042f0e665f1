"""Write an agreement study down: files, a figure and an MLflow run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tasks.agreement import Study, agreement_table
from tasks.pictures import save_figure
from tasks.prefect_task import as_task
from tasks.settings import Settings
from tasks.tracking import log_table, tracked_run
from tasks.workspace import row_dicts

DOTS = 60
"""Cases of a pair and class up to which each is drawn as a dot."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """A study's figures: one row a case, pair and class; one row a pair and class; and where they are kept."""

    run_id: str
    scores: pd.DataFrame
    table: pd.DataFrame
    folder: Path
    picture: Path


def log_agreement(scores: pd.DataFrame, study: Study, settings: Settings, flow_run_id: str | None = None) -> Agreement:
    """Keep the scores of a study: tables as Parquet and JSON, the figure, and an MLflow run with all of them."""
    table = agreement_table(scores)
    with tracked_run(settings, "agreement", kind="agreement", tags={"flow_run_id": flow_run_id}) as run_id:
        folder = settings.workspace.absolute() / "agreement" / run_id
        picture = agreement_picture(scores, folder / "agreement.png")
        scores.to_parquet(folder / "scores.parquet", index=False)
        table.to_parquet(folder / "classes.parquet", index=False)
        about = {
            "format": 1,
            "sets": [one.name for one in study.sets],
            "dataset": study.dataset,
            "cases": int(scores["case_id"].nunique()),
            "patients": int(scores["patient"].nunique()),
            "nsd_tolerance_mm": settings.nsd_tolerance_mm,
            "classes": row_dicts(table),
        }
        (folder / "agreement.json").write_text(json.dumps(about, indent=2))
        mlflow.log_params({key: value for key, value in about.items() if key not in ("format", "classes")})
        mlflow.log_metrics(_metrics(table))
        log_table(scores, "scores")
        log_table(table, "classes")
        for file in (picture, folder / "agreement.json"):
            mlflow.log_artifact(str(file))
    return Agreement(run_id, scores, table, folder, picture)


def _metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return `dsc/CLASS/FIRST - SECOND` and the like; a mean of nothing is left out."""
    return {
        f"{score}/{row['class_name']}/{row['pair']}": float(row[score])
        for row in row_dicts(table)
        for score in ("dsc", "nsd")
        if row[score] is not None and np.isfinite(row[score])
    }


def agreement_picture(scores: pd.DataFrame, path: Path) -> Path:
    """Draw boxes of DSC and NSD over the cases, one a class and pair, pairs in colours; few cases are dots as well."""
    classes, pairs = list(dict.fromkeys(scores["class_name"])), list(dict.fromkeys(scores["pair"]))
    figure = Figure(figsize=(11, (0.3 * len(pairs) + 0.25) * len(classes) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    height = 0.8 / len(pairs)
    for column, (score, title) in enumerate((("dsc", "DSC"), ("nsd", "NSD"))):
        axes = figure.add_subplot(1, 2, column + 1)
        for number, pair in enumerate(pairs):
            for place, name in enumerate(classes):
                found = scores[(scores["class_name"] == name) & (scores["pair"] == pair)][score].dropna().to_numpy()
                if not len(found):
                    continue
                position = place + (number - (len(pairs) - 1) / 2) * height
                box = axes.boxplot(
                    found,
                    positions=[position],
                    widths=0.8 * height,
                    orientation="horizontal",
                    patch_artist=True,
                    showfliers=len(found) > DOTS,
                    medianprops={"color": "0.1"},
                )
                box["boxes"][0].set(facecolor=f"C{number}", alpha=0.5)
                if len(found) <= DOTS:
                    axes.plot(found, np.full(len(found), position), ".", color=f"C{number}", markersize=4)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.5, -0.5), title=title)
        axes.set_yticks(range(len(classes)), [name.replace("_", " ") for name in classes] if column == 0 else [])
        axes.grid(axis="x", alpha=0.3)
    handles = [Patch(facecolor=f"C{number}", alpha=0.5, label=pair) for number, pair in enumerate(pairs)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(pairs), 3), frameon=False)
    return save_figure(figure, path)


log_agreement_task = as_task(log_agreement, "log-agreement", retries=2, retry_delay_seconds=5)
