"""The scheduled deployments: `infra/prefect.yaml` is the one place that lists them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

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


def flow_of(entry: dict[str, Any]) -> Flow[..., Any]:
    """Return the flow that an entry's `entrypoint`, `flows/<module>.py:<function>`, names."""
    path, _, function = str(entry["entrypoint"]).partition(":")
    found = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), function, None)
    if not isinstance(found, Flow):
        raise ValueError(
            f"deployment {entry['name']!r}: entrypoint {entry['entrypoint']!r} names {type(found).__name__}, "
            "expected a Prefect flow; write flows/<module>.py:<function>"
        )
    return found


def build_deployments(path: Path = DEPLOYMENTS_FILE) -> list[RunnerDeployment]:
    """Return one Prefect deployment per entry of `path`, with its flow loaded."""
    deployments = []
    for entry in read_deployments(path):
        deployment = flow_of(entry).to_deployment(
            name=entry["name"],
            # Runs import the installed package, wherever the process that serves them was started.
            entrypoint_type=EntrypointType.MODULE_PATH,
            parameters=entry["parameters"],
            schedules=[Schedule(**schedule) for schedule in entry["schedules"]],
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
