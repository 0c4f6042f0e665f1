"""Operating points from another evaluation of the same weights, on patients that are not scored now."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pandas as pd

from tasks.detection import OperatingPoints, choose_points
from tasks.evidence import ABOUT, SCORES
from tasks.settings import Settings
from tasks.splits import ScoringCases
from tasks.tracking import mlflow_client


def points_of_run(run_id: str, weights: str, scored: ScoringCases, settings: Settings) -> OperatingPoints:
    """Return the volume limits chosen on the cases of the evaluation `run_id`.

    Raises ValueError where it is of other weights, or shares a patient with the cases scored now: then its points would
    be as optimistic here as if chosen here.
    """
    mlflow_client(settings)
    about = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{ABOUT}"))
    if about["weights_sha256"] != weights:
        raise ValueError(
            f"operating points of run {run_id}: chosen for weights {about['weights_sha256'][:12]}, but {weights[:12]} "
            "are evaluated; name an evaluation of this version"
        )
    file = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=SCORES)
    scores = pd.read_parquet(Path(file))
    shared = sorted(set(scores["patient"]) & set(scored.cases["split_group"]))
    if shared:
        cases = scores[scores["patient"].isin(shared)]["case_id"].unique()
        raise ValueError(
            f"operating points of run {run_id}: {len(shared)} of its patients are scored now ({', '.join(cases[:5])}); "
            "choose them on another fold"
        )
    return choose_points(scores, f"run {run_id}", settings.operating_sensitivity)
