"""The card of a model version: facts gathered from MLflow, written beside the run, and shown on the version's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from models.checkpoint import members, read_metadata
from tasks.calibration_run import CALIBRATION_TAG
from tasks.evidence import ABOUT as EVALUATION
from tasks.evidence import EVALUATE, EVALUATION_TAG, evaluation_runs
from tasks.model_card_text import CardFacts, card_text, shortened
from tasks.model_files import ABOUT, DESCRIPTION, describe
from tasks.prefect_task import as_task
from tasks.registry import TRAINING_CASES, ModelVersion, fetch_checkpoint, model_version, version_tags
from tasks.settings import Settings
from tasks.tracking import find_runs, mlflow_client
from tasks.training_data import ANNOTATED, DATA_LICENCES, data_licences

CARD = "model_card.md"
"""Artifact of the run that made a version, and of the runs that evaluated it."""
SHOWN_LENGTH = 5000
"""What MLflow's database keeps of a description."""


def refresh_model_card(version: ModelVersion, settings: Settings) -> str:
    """Write the card of a version anew from what is known now, and return it, as Markdown.

    Afterwards it is an artifact and the description of the run that made the version and of the runs that evaluated it,
    and the description of the version. A second call does the same again; call it whenever something new is known.
    """
    client = mlflow_client(settings)
    version = model_version(version.uri, settings)  # its aliases may have moved
    facts = card_facts(version, settings)
    text = card_text(facts)
    short = shortened(text, SHOWN_LENGTH, f"the whole card is {CARD} of run {version.run_id}")
    for run_id in {version.run_id, *_evaluation_runs(version, facts.tags, settings)}:
        client.log_text(run_id, text, CARD)
        client.set_tag(run_id, "mlflow.note.content", short)
    client.update_model_version(version.name, str(version.version), short)
    return text


def card_facts(version: ModelVersion, settings: Settings) -> CardFacts:
    """Return what MLflow knows of a version; no weights are read where the version has a description of them."""
    client, tags = mlflow_client(settings), version_tags(version, settings)
    run = client.get_run(version.run_id)
    seen = _text(version.run_id, TRAINING_CASES, client)
    case_ids = None if seen is None else seen.split()
    data = _table(version.run_id, DATA_LICENCES, client)
    evaluation_run = tags.get(EVALUATION_TAG)
    calibration_run = tags.get(CALIBRATION_TAG)
    return CardFacts(
        version=version,
        tags=tags,
        about=_about(version, settings),
        kind=run.data.tags.get("kind", "unknown"),
        made_by={**run.data.params, **run.data.tags},
        cases=None if case_ids is None or any(case.endswith("/*") for case in case_ids) else len(case_ids),
        data=data_licences(case_ids or (), settings) if data is None else data,
        annotated=_table(version.run_id, ANNOTATED, client),
        evaluated=None if evaluation_run is None else dict(client.get_run(evaluation_run).data.metrics),
        evaluation={} if evaluation_run is None else _json(evaluation_run, EVALUATION, client),
        cohorts=_cohorts(version, evaluation_run, client, settings),
        calibrated=None if calibration_run is None else dict(client.get_run(calibration_run).data.metrics),
    )


def _about(version: ModelVersion, settings: Settings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = mlflow.artifacts.load_dict(f"{version.uri}/artifacts/{ABOUT}/{DESCRIPTION}")
    except (MlflowException, OSError):  # a version from before there was a description
        checkpoint = fetch_checkpoint(version, settings)
        return describe(read_metadata(checkpoint), [file.name for file in members(checkpoint)])
    return found


def _evaluation_runs(version: ModelVersion, tags: Mapping[str, str], settings: Settings) -> set[str]:
    return set(evaluation_runs(version, settings)) | ({tags[EVALUATION_TAG]} if EVALUATION_TAG in tags else set())


def _cohorts(
    version: ModelVersion, held_out: str | None, client: MlflowClient, settings: Settings
) -> dict[str, tuple[tuple[str, ...], Mapping[str, float]]]:
    """Return data sets and metrics of the newest evaluation on each other choice of cohorts, by run."""
    newest: dict[tuple[str, ...], tuple[str, Mapping[str, float]]] = {}
    for run in find_runs(settings, EVALUATE, tags={"model": version.uri}):
        if run.info.run_id == held_out or run.info.status != "FINISHED":
            continue
        about = _json(run.info.run_id, EVALUATION, client)
        newest.setdefault(tuple(sorted(about.get("datasets", ()))), (run.info.run_id, dict(run.data.metrics)))
    return {run_id: (cohorts, metrics) for cohorts, (run_id, metrics) in newest.items() if cohorts}


def _names(run_id: str, client: MlflowClient) -> set[str]:
    return {item.path for item in client.list_artifacts(run_id)}


def _text(run_id: str, name: str, client: MlflowClient) -> str | None:
    if name not in _names(run_id, client):
        return None
    return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{name}"))


def _json(run_id: str, name: str, client: MlflowClient) -> dict[str, Any]:
    return dict(mlflow.artifacts.load_dict(f"runs:/{run_id}/{name}")) if name in _names(run_id, client) else {}


def _table(run_id: str, name: str, client: MlflowClient) -> pd.DataFrame | None:
    file = f"{name}.parquet"
    if file not in _names(run_id, client):
        return None
    return pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{file}"))


refresh_model_card_task = as_task(refresh_model_card, "refresh-model-card")
