"""MLflow runs: where they are kept, and what every run of the factory writes down."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

# MLflow reads these at import; nothing of a hospital's network is to report home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Ours are models from code; a model whose files ask for a pickle is refused unread.
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

# Its own seven tries take four minutes a request; where it matters, `tasks.patience` waits longer and says so.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tasks.notices import tell
from tasks.provenance import code_version, environment, environment_lock
from tasks.settings import Settings

LOCK = "requirements.lock.txt"
"""Artifact of every run: the exact packages it ran with."""

_KIND_OF_PAGE = {"mlflow.experimentKind": "custom_model_development"}
"""Else MLflow's pages guess, and take evaluations for those of language models."""

_STYLE = (
    "<style>body{font:14px system-ui,sans-serif;margin:16px}table{border-collapse:collapse}"
    "th,td{padding:3px 10px;text-align:right;border-bottom:1px solid #ddd}th{background:#f4f4f4;position:sticky;top:0}"
    "td:first-child,th:first-child{text-align:left}</style>"
)


def mlflow_client(settings: Settings) -> MlflowClient:
    """Return a client of the settings' MLflow; for a SQLite file, folder and artifact store are made beside it."""
    mlflow_environment(settings)
    return MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)


def mlflow_environment(settings: Settings) -> None:
    """Let MLflow's own functions use the settings' server; for a SQLite file its folder is made."""
    if match := re.fullmatch(r"sqlite:///(.+)", settings.mlflow_uri):
        Path(match[1]).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(settings.mlflow_uri)
    mlflow.set_registry_uri(settings.mlflow_uri)


def experiment_name(settings: Settings, kind: str) -> str:
    """Return the name of the experiment of the runs of a kind: one for each kind of task."""
    return f"{settings.experiment}/{kind}"


def _experiment_id(settings: Settings, kind: str) -> str:
    name = experiment_name(settings, kind)
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if match := re.fullmatch(r"sqlite:///(.+)", settings.mlflow_uri):
        location = (Path(match[1]).parent / "artifacts").absolute().as_uri()
    try:
        return str(mlflow.create_experiment(name, artifact_location=location, tags=_KIND_OF_PAGE))
    except MlflowException:
        # Another process made it in between.
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


@contextmanager
def tracked_run(
    settings: Settings,
    name: str,
    *,
    kind: str,
    tags: Mapping[str, str | None],
    run_id: str | None = None,
    parent_run_id: str | None = None,
    table_versions: Mapping[str, int] | None = None,
    system_metrics: bool = False,
) -> Iterator[str]:
    """Open an MLflow run, write down where it comes from, and yield the run's id; an exception marks the run FAILED.

    One run of a flow is one run here, in the experiment of its kind; its parts, such as folds, are children of it and
    lie in its experiment. tags: lineage (flow run, model version); a None is left out. run_id: go on in this run
    instead of a new one. parent_run_id: of the run that this one is a part of. table_versions: of the tables it reads.
    system_metrics: log the use of CPU, memory, disk, network and, where `nvidia-ml-py` is installed, GPU while the run
    is open. Every run gets the commit of the code as tags, `environment.json` and `requirements.lock.txt`.
    """
    client = mlflow_client(settings)
    experiment = None
    if run_id is None:
        parent = None if parent_run_id is None else client.get_run(parent_run_id)
        experiment = _experiment_id(settings, kind) if parent is None else parent.info.experiment_id
    run = mlflow.start_run(
        run_id=run_id,
        experiment_id=experiment,
        run_name=None if run_id else name,
        nested=parent_run_id is not None,
        parent_run_id=parent_run_id,
        log_system_metrics=system_metrics,
    )
    status = "FAILED"
    try:
        given = {"kind": kind, **code_version().tags(), **tags}
        if table_versions is not None:
            given["table_versions"] = json.dumps(dict(table_versions))
        mlflow.set_tags({key: value for key, value in given.items() if value is not None})
        mlflow.log_dict(environment(), "environment.json")
        mlflow.log_text(environment_lock(), LOCK)
        if table_versions is not None and run_id is None:
            mlflow.log_params({f"table_version.{table}": number for table, number in table_versions.items()})
        yield run.info.run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        _end_run(run.info.run_id, status)


def _end_run(run_id: str, status: str) -> None:
    """Tell MLflow how the run ended; where it ended badly and MLflow cannot be told, the first error is what counts."""
    try:
        mlflow.end_run(status)
    except (MlflowException, OSError) as error:
        if status == "FINISHED":
            raise
        tell(f"MLflow could not be told that run {run_id} is {status}: {error}")


def find_runs(
    settings: Settings, kind: str, *, parent_run_id: str | None = None, tags: Mapping[str, str] | None = None
) -> list[Run]:
    """Return the MLflow runs of a kind, newest first, whichever experiment they lie in.

    parent_run_id: only the parts of this run. tags: only runs that have all of these, such as
    `{"model": "models:/universal/3"}`.
    """
    client = mlflow_client(settings)
    names = f"name LIKE '{settings.experiment}%'"
    prefix = settings.experiment + "/"
    experiments = [
        one.experiment_id
        for one in client.search_experiments(filter_string=names)
        if one.name == settings.experiment or one.name.startswith(prefix)
    ]
    wanted = {"kind": kind, **(tags or {})}
    if parent_run_id is not None:
        wanted["mlflow.parentRunId"] = parent_run_id
    condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
    found: list[Run] = []
    token = None
    while experiments:
        page = client.search_runs(
            experiments, condition, max_results=1000, order_by=["attributes.start_time DESC"], page_token=token
        )
        found.extend(page)
        token = page.token
        if not token:
            break
    return found


def log_table(table: pd.DataFrame, name: str) -> None:
    """Log a table twice in the active run: `NAME.parquet` for programs, `NAME.html` for the eye, which MLflow shows."""
    with tempfile.TemporaryDirectory() as aside:
        table.to_parquet(Path(aside) / f"{name}.parquet", index=False)
        mlflow.log_artifact(str(Path(aside) / f"{name}.parquet"))
    mlflow.log_text(html_table(table, name), f"{name}.html")


def html_table(table: pd.DataFrame, title: str) -> str:
    """Return a page with the table: figures to three places, what was not measured as a dash."""
    rows = table.to_html(index=False, na_rep="–", border=0, float_format=lambda value: f"{value:.3f}")
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>{_STYLE}{rows}</html>\n'


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
