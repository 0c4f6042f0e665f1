"""MLflow runs: where they are kept, and what every run of the factory writes down."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# MLflow reads these at import; nothing of a hospital's network is to report home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import mlflow
from mlflow import MlflowClient

from tasks.settings import Settings

REPORTED_PACKAGES = (
    "ct-label-factory",
    "torch",
    "monai",
    "zarr",
    "zarrs",
    "deltalake",
    "open_clip_torch",
    "lightning",
    "mlflow",
    "prefect",
    "dask",
    "numpy",
    "SimpleITK",
)


def mlflow_client(settings: Settings) -> MlflowClient:
    """Return a client of the settings' MLflow; for a SQLite file, folder and artifact store are made beside it."""
    _prepare(settings)
    return MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)


def _prepare(settings: Settings) -> None:
    if match := re.fullmatch(r"sqlite:///(.+)", settings.mlflow_uri):
        Path(match[1]).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(settings.mlflow_uri)
    mlflow.set_registry_uri(settings.mlflow_uri)


def _experiment_id(settings: Settings) -> str:
    found = mlflow.get_experiment_by_name(settings.experiment)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if match := re.fullmatch(r"sqlite:///(.+)", settings.mlflow_uri):
        location = (Path(match[1]).parent / "artifacts").absolute().as_uri()
    return str(mlflow.create_experiment(settings.experiment, artifact_location=location))


@contextmanager
def tracked_run(
    settings: Settings,
    name: str,
    *,
    kind: str,
    tags: Mapping[str, str | None],
    run_id: str | None = None,
    parent_run_id: str | None = None,
    system_metrics: bool = False,
) -> Iterator[str]:
    """Open an MLflow run, write down the environment, and yield the run's id; an exception marks the run FAILED.

    tags: lineage (flow run, model version, table versions); a None is left out. run_id: go on in this run instead of a
    new one. parent_run_id: of the run that this one is a part of. system_metrics: log the use of CPU, memory, disk,
    network and, where `nvidia-ml-py` is installed, GPU while the run is open.
    """
    _prepare(settings)
    opened = mlflow.start_run(
        run_id=run_id,
        experiment_id=None if run_id else _experiment_id(settings),
        run_name=None if run_id else name,
        nested=parent_run_id is not None,
        parent_run_id=parent_run_id,
        log_system_metrics=system_metrics,
    )
    with opened as run:
        mlflow.set_tags({"kind": kind, **{key: value for key, value in tags.items() if value is not None}})
        mlflow.log_dict(environment(), "environment.json")
        yield run.info.run_id


def environment() -> dict[str, Any]:
    """Return versions of Python, the platform and the packages that shape a result; no host or user name."""
    packages = {}
    for package in REPORTED_PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "packages": packages,
    }


def log_parameters(values: Mapping[str, Any], prefix: str = "") -> None:
    """Log nested settings as flat MLflow parameters (`train.lr`); long values are kept whole in `parameters.json`."""
    flat = dict(_flatten(values, prefix))
    mlflow.log_params({key: str(value)[:500] for key, value in flat.items()})
    mlflow.log_dict(json.loads(json.dumps(flat, default=str)), "parameters.json")


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value
