"""Write an evaluation down: an MLflow run with metrics, tables and a picture, named by the model version."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd

from tasks.evaluate import class_table, detection_table, summary_metrics
from tasks.pictures import class_scores
from tasks.prefect_task import as_task
from tasks.evidence import EVALUATION_TAG
from tasks.registry import ModelVersion
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import mlflow_client, tracked_run


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one model version: the summary the gates read, the tables behind it, and where they are kept."""

    run_id: str
    summary: dict[str, float]
    classes: pd.DataFrame
    detection: pd.DataFrame
    picture: Path
    overlays: tuple[Path, ...] = ()

    def summary_table(self) -> pd.DataFrame:
        """Return the summary as rows of figure and value."""
        return pd.DataFrame(list(self.summary.items()), columns=["figure", "value"])


def log_evaluation(
    scores: pd.DataFrame,
    model: ModelVersion,
    settings: Settings,
    overlays: Sequence[Path] = (),
    *,
    choice: SplitChoice,
    flow_run_id: str | None = None,
    parent_run_id: str | None = None,
) -> Evaluation:
    """Log `scores` (one row a case and class) as an MLflow run, and let the model version name that run.

    overlays: pictures of prediction and truth, logged beside the tables. choice: by which the cases were chosen.
    parent_run_id: of the run that this evaluation is a part of.
    """
    classes, detection = class_table(scores), detection_table(scores, settings.detection_min_ml)
    summary = summary_metrics(scores, settings.detection_min_ml)
    tags = {"model": model.uri, "train_run_id": model.run_id, "flow_run_id": flow_run_id}
    with tracked_run(
        settings, f"evaluate v{model.version}", kind="evaluate", tags=tags, parent_run_id=parent_run_id
    ) as run_id:
        folder = settings.workspace.absolute() / "evaluations" / f"v{model.version}"
        picture = class_scores(classes, folder / "class_scores.png")
        mlflow.log_metrics(summary)
        per_class = classes.groupby("class_name")[["dsc", "nsd"]].mean().dropna(how="all")
        mlflow.log_metrics(
            {
                f"{score}.{name}": float(value)
                for score in ("dsc", "nsd")
                for name, value in per_class[score].dropna().items()
            }
        )
        mlflow.log_params(
            {
                "nsd_tolerance_mm": settings.nsd_tolerance_mm,
                "detection_min_ml": settings.detection_min_ml,
                "split": choice.split,
                "held_out": choice.held_out_name,
                "cases": scores["case_id"].nunique(),
            }
        )
        with tempfile.TemporaryDirectory() as aside:
            for name, table in (("scores", scores), ("classes", classes), ("detection", detection)):
                table.to_csv(Path(aside) / f"{name}.csv", index=False)
            mlflow.log_artifacts(aside)
        for file in (picture, *overlays):
            mlflow.log_artifact(str(file))
    mlflow_client(settings).set_model_version_tag(model.name, str(model.version), EVALUATION_TAG, run_id)
    return Evaluation(run_id, summary, classes, detection, picture, tuple(overlays))


log_evaluation_task = as_task(log_evaluation, "log-evaluation", retries=2, retry_delay_seconds=5)
