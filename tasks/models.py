"""What is known of the registered versions, as plain values."""

from __future__ import annotations

import json
from typing import Any

from mlflow import MlflowClient

from models.checkpoint import read_metadata
from models.licence import KEYS as LICENCE_KEYS
from models.licence import LICENCE, SOURCE
from tasks.registry import CLASSES, ModelVersion, fetch_checkpoint, list_versions, model_version, version_tags
from tasks.settings import Settings
from tasks.tracking import mlflow_client


def list_models(settings: Settings) -> list[dict[str, Any]]:
    """Return one row a registered version, newest first: uri, aliases, kind of run, backbone, classes, licence, source.

    What the registry does not know of a version is None; its weights are not read.
    """
    client = mlflow_client(settings)
    return [_row(client, version, settings) for version in list_versions(settings)]


def _row(client: MlflowClient, version: ModelVersion, settings: Settings) -> dict[str, Any]:
    run, tags = client.get_run(version.run_id).data, version_tags(version, settings)
    classes = tags.get(CLASSES)
    return {
        "model": version.uri,
        "aliases": list(version.aliases),
        "made_by": run.tags.get("kind"),
        "backbone": run.params.get("model.backbone"),
        "classes": None if classes is None else len(classes.split(",")),
        "licence": tags.get(LICENCE),
        "source": tags.get(SOURCE) or run.tags.get("start_from"),
    }


def show_model(uri: str, settings: Settings) -> dict[str, Any]:
    """Return everything a version says about itself: licence, network, embeddings, training, and further tags."""
    version = model_version(uri, settings)
    path = fetch_checkpoint(version, settings)
    values = json.loads(read_metadata(path).as_json())
    extra = values.pop("extra")
    found = {
        "model": version.uri,
        "aliases": list(version.aliases),
        "run": version.run_id,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        **{name: extra.pop(name) for name in LICENCE_KEYS if name in extra},
        **values.pop("model"),
        **values,
        **extra,
    }
    more = {name: value for name, value in version_tags(version, settings).items() if name not in found}
    return {**found, "tags": more}
