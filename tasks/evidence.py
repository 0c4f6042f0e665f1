"""What an evaluation of a model version proves: its scores, read back and held against what vouches for them.

The MLflow run of an evaluation can be edited by whoever reaches the server. What counts are the files whose digests
stand in the `runs` table of the lake, which is only ever appended to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import LifecycleStage, RunStatus
from mlflow.exceptions import MlflowException

from tasks.registry import ModelVersion
from tasks.settings import Settings
from tasks.tracking import mlflow_client
from tasks.workspace import Workspace

ABOUT, SCORES = "evaluation.json", "scores.parquet"
FORMAT = 1
EVALUATION_TAG = "evaluation_run_id"
"""Tag of a model version that names the MLflow run of its latest evaluation on held-out cases."""

EVALUATE = "evaluate"
"""Kind of an evaluation's runs, in MLflow and in the `runs` table."""


class NoEvidence(ValueError):
    """An evaluation that proves nothing: files missing, changed since, or about something else."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """One evaluation. about: `evaluation.json`. scores: one row a case and class. logged: the metrics MLflow shows."""

    run_id: str
    about: Mapping[str, Any]
    scores: pd.DataFrame
    logged: Mapping[str, float]

    @property
    def cases(self) -> list[str]:
        """Ids of the cases scored, sorted."""
        return sorted(set(self.scores["case_id"]))


def held_out_run(model: ModelVersion, settings: Settings) -> str | None:
    """Return the MLflow run of the version's latest evaluation on held-out cases, None where it was never evaluated."""
    tags = mlflow_client(settings).get_model_version(model.name, str(model.version)).tags
    found: str | None = tags.get(EVALUATION_TAG)
    return found


def evaluation_runs(model: ModelVersion, settings: Settings) -> list[str]:
    """Return the MLflow runs that evaluated the version, newest first."""
    client = mlflow_client(settings)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(
        experiments, f"tags.kind = '{EVALUATE}' and tags.model = '{model.uri}'", order_by=["attributes.start_time DESC"]
    )
    return [run.info.run_id for run in found]


def read_evidence(run_id: str, model: ModelVersion, workspace: Workspace) -> Evidence:
    """Return what the evaluation `run_id` says of `model`.

    Raises NoEvidence where the run is gone, unfinished or deleted, where its files are not the ones that the `runs`
    table vouches for, and where they are about another version.
    """
    run = _finished_run(run_id, workspace.settings)
    vouched = _vouched(run_id, workspace)
    files = {name: _artifact(run_id, name) for name in (ABOUT, SCORES)}
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != vouched.get(name):
            raise NoEvidence(
                f"evaluation {run_id}: {name} has SHA-256 {found[:12]}, the catalog noted "
                f"{str(vouched.get(name))[:12]}; it was changed since: evaluate {model.uri} again"
            )
    about = json.loads(files[ABOUT])
    _check_subject(run_id, about, model)
    scores = pd.read_parquet(BytesIO(files[SCORES]))
    if about["scores_sha256"] != vouched[SCORES]:
        raise NoEvidence(f"evaluation {run_id}: {ABOUT} is of other scores than {SCORES}; evaluate again")
    return Evidence(run_id, about, scores, dict(run.data.metrics))


def _finished_run(run_id: str, settings: Settings) -> Any:
    try:
        run = mlflow_client(settings).get_run(run_id)
    except MlflowException as error:
        raise NoEvidence(f"evaluation {run_id}: no such MLflow run ({error.error_code}); evaluate again") from error
    status, stage = run.info.status, run.info.lifecycle_stage
    if status != RunStatus.to_string(RunStatus.FINISHED) or stage != LifecycleStage.ACTIVE:
        raise NoEvidence(
            f"evaluation {run_id}: the run is {status}, {stage}; expected FINISHED, active: evaluate again"
        )
    if run.data.tags.get("kind") != EVALUATE:
        raise NoEvidence(
            f"evaluation {run_id}: a run of kind {run.data.tags.get('kind')!r}, expected {EVALUATE!r}; evaluate again"
        )
    return run


def _vouched(run_id: str, workspace: Workspace) -> dict[str, str]:
    """Return the digests that the `runs` table keeps of an evaluation's files."""
    runs = workspace.tables.runs(kind=EVALUATE)
    own = runs[(runs["mlflow_run_id"] == run_id) & (runs["outcome"] == "done")]
    if own.empty or not isinstance(own.iloc[-1]["evidence"], str):
        raise NoEvidence(
            f"evaluation {run_id}: the table `runs` has no finished evaluation of that run with digests; evaluate again"
        )
    digests: dict[str, str] = json.loads(own.iloc[-1]["evidence"])
    return digests


def _artifact(run_id: str, name: str) -> bytes:
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name)).read_bytes()
    except (MlflowException, OSError) as error:
        raise NoEvidence(f"evaluation {run_id}: no artifact {name} ({error}); evaluate again") from error


def _check_subject(run_id: str, about: Mapping[str, Any], model: ModelVersion) -> None:
    if about.get("format") != FORMAT:
        raise NoEvidence(f"evaluation {run_id}: format {about.get('format')!r}, expected {FORMAT}; evaluate again")
    subject = about["model"]
    if (subject["name"], int(subject["version"])) != (model.name, model.version):
        raise NoEvidence(
            f"evaluation {run_id}: it is of models:/{subject['name']}/{subject['version']}, expected {model.uri}; "
            f"evaluate {model.uri}"
        )
