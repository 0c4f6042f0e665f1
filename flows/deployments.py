"""The scheduled deployments: `infra/prefect.yaml` is the one place that lists them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import load_flow_from_entrypoint

from tasks.settings import Settings

DEPLOYMENTS_FILE = Path(__file__).parent.parent / "infra" / "prefect.yaml"


def read_deployments(path: Path = DEPLOYMENTS_FILE) -> list[dict[str, Any]]:
    """Return the entries of `path`; raises ValueError naming the entry that lacks a key."""
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text())["deployments"]
    for entry in entries:
        missing = {"name", "entrypoint", "parameters", "schedules"} - set(entry)
        if missing:
            raise ValueError(f"{path}: deployment {entry.get('name', '?')!r} lacks {sorted(missing)}; add them")
    return entries


def build_deployments(path: Path = DEPLOYMENTS_FILE) -> list[RunnerDeployment]:
    """Return one Prefect deployment per entry of `path`, with its flow loaded."""
    deployments = []
    for entry in read_deployments(path):
        deployment = load_flow_from_entrypoint(str(path.parent.parent / entry["entrypoint"])).to_deployment(
            name=entry["name"],
            parameters=entry["parameters"],
            cron=entry["schedules"][0]["cron"],
            description=entry.get("description"),
            tags=entry.get("tags"),
        )
        if not isinstance(deployment, RunnerDeployment):
            raise TypeError(f"{path}: Prefect returned {type(deployment).__name__}; build deployments outside a loop")
        deployments.append(deployment)
    return deployments


def serve_deployments(settings: Settings) -> None:
    """Register the deployments and run them on schedule from this process, until it is interrupted."""
    # Scheduled runs are processes of their own: they find the workspace in the environment.
    os.environ["CTFACTORY_WORKSPACE"] = str(settings.workspace.absolute())
    serve(*build_deployments())
