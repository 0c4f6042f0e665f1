"""Registering what was trained; where MLflow does not answer, the weights are kept aside and registered later."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow

from datasets_registry.sources.http import public_url
from models.checkpoint import members
from tasks.metric_queue import MetricRow, send_metrics
from tasks.model_card import refresh_model_card
from tasks.patience import does_not_answer, first_line, patiently
from tasks.registry import ModelVersion, WeightsChanged, checkpoint_digest, register_checkpoint, set_alias
from tasks.settings import Settings
from tasks.tracking import mlflow_client, mlflow_environment

FOLDER = "pending"
DESCRIPTION = "registration.json"


class RegistrationPending(RuntimeError):
    """What was trained could not be registered and is kept aside. run_id: the MLflow run that waits."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


@dataclass(frozen=True)
class Registration:
    """All that is left to do for a model once its weights are written.

    run_id: the MLflow run that made it. checkpoint: a safetensors file, or a folder of several. tags: of the version.
    metrics: curves that were not delivered yet. files: to be logged in the run. alias: that the version gets.
    """

    run_id: str
    checkpoint: Path
    tags: Mapping[str, str]
    metrics: tuple[MetricRow, ...] = ()
    files: tuple[Path, ...] = ()
    alias: str | None = None
    weights_sha256: str = field(default="")


def register(registration: Registration, settings: Settings) -> ModelVersion:
    """Register a model in the active run, trying again while MLflow does not answer (`mlflow_patience_s`).

    Where it still cannot be done, weights and all else are kept in WORKSPACE/pending, and RegistrationPending names
    the command that finishes it.
    """
    try:
        version = patiently(
            lambda: _register(registration, settings), settings.mlflow_patience_s, f"registering {registration.run_id}"
        )
    except Exception as error:
        kept = _keep(registration, settings)
        raise RegistrationPending(
            f"run {registration.run_id}: its model is trained but not registered, MLflow at "
            f"{public_url(settings.mlflow_uri)} did not take it ({first_line(error)}). Weights and all else are kept "
            f"in {kept}; once MLflow answers: ctfactory models register --pending {registration.run_id} "
            f"--workspace {settings.workspace}",
            registration.run_id,
        ) from error
    shutil.rmtree(_folder(settings) / registration.run_id, ignore_errors=True)
    return version


def _register(registration: Registration, settings: Settings) -> ModelVersion:
    """Do all that is left; whatever part was done before is done once more, to the same end."""
    client = mlflow_client(settings)
    send_metrics(client, registration.run_id, registration.metrics)
    for file in registration.files:
        client.log_artifact(registration.run_id, str(file))
    version = register_checkpoint(registration.checkpoint, settings, tags=registration.tags)
    refresh_model_card(version, settings)
    if registration.alias is not None:
        set_alias(version, registration.alias, settings)
    return version


def pending_registrations(settings: Settings) -> list[str]:
    """Return the ids of the runs whose models wait to be registered, sorted."""
    return sorted(path.parent.name for path in _folder(settings).glob(f"*/{DESCRIPTION}"))


def register_pending(run_id: str, settings: Settings) -> ModelVersion:
    """Register the model that was kept aside for `run_id`, and let its run be finished; the kept files go then.

    Raises LookupError where nothing waits under that id, WeightsChanged where the kept weights are not those that
    were trained, and RegistrationPending when MLflow still does not answer; everything is still kept then.
    """
    folder = _folder(settings) / run_id
    if not (folder / DESCRIPTION).is_file():
        waiting = pending_registrations(settings)
        told = f"waiting: {', '.join(waiting)}" if waiting else "nothing waits"
        raise LookupError(f"{run_id}: no registration of this run is kept in {_folder(settings)}; {told}")
    registration = _read(folder)
    if (found := checkpoint_digest(registration.checkpoint)) != registration.weights_sha256:
        raise WeightsChanged(
            f"{registration.checkpoint}: SHA-256 {found}, but {registration.weights_sha256} was trained; the kept file "
            f"was changed, look in {settings.workspace / 'training' / run_id} for the original"
        )
    mlflow_environment(settings)
    try:
        with mlflow.start_run(run_id=run_id):  # which ends as FINISHED
            version = _register(registration, settings)
    except Exception as error:
        if not does_not_answer(error):
            raise
        raise RegistrationPending(
            f"run {run_id} still waits: MLflow at {public_url(settings.mlflow_uri)} does not answer "
            f"({first_line(error)}); everything is kept in {folder}, try again later",
            run_id,
        ) from error
    shutil.rmtree(folder)
    return version


def _folder(settings: Settings) -> Path:
    return settings.workspace.absolute() / FOLDER


def _keep(registration: Registration, settings: Settings) -> Path:
    """Write everything aside and then rename it, so that what is in `pending` is whole; return its folder."""
    target = _folder(settings) / registration.run_id
    aside = target.with_name(f".{registration.run_id}.{uuid.uuid4().hex[:8]}")
    weights = aside / "weights"
    (aside / "files").mkdir(parents=True)
    weights.mkdir()
    for file in members(registration.checkpoint):
        _link(file, weights / file.name)
    for file in registration.files:
        _link(file, aside / "files" / file.name)
    values: dict[str, Any] = asdict(
        replace(registration, weights_sha256=checkpoint_digest(registration.checkpoint), files=())
    )
    values["checkpoint"] = registration.checkpoint.name if registration.checkpoint.is_file() else None
    (aside / DESCRIPTION).write_text(json.dumps(values), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    return target


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, target)


def _read(folder: Path) -> Registration:
    values = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    name = values["checkpoint"]
    return Registration(
        **{
            **values,
            "checkpoint": folder / "weights" if name is None else folder / "weights" / name,
            "metrics": tuple(MetricRow(*row) for row in values["metrics"]),
            "files": tuple(sorted((folder / "files").iterdir())),
        }
    )
