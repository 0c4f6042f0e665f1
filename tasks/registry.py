"""The model registry: add a version, move an alias, fetch a checkpoint by `models:/NAME@alias` or `models:/NAME/3`."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from models.checkpoint import read_metadata
from tasks.model_files import log_model_files
from tasks.notices import tell, tell_licence
from tasks.settings import Settings
from tasks.tracking import mlflow_client
from tasks.weights import WEIGHTS as WEIGHTS
from tasks.weights import WeightsChanged as WeightsChanged
from tasks.weights import checkpoint_digest as checkpoint_digest

CHALLENGER = "challenger"
CHAMPION = "champion"

CLASSES = "classes"
"""Tag of every version: the names of its classes, in order, separated by commas."""

TRAINING_CASES = "training_cases.txt"
"""Artifact of a training run: one case id a line."""

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class ModelVersion:
    """A version of the registered model, with its aliases and the run that made it."""

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The address that always means this version."""
        return f"models:/{self.name}/{self.version}"


def register_checkpoint(checkpoint: Path, settings: Settings, *, tags: Mapping[str, str]) -> ModelVersion:
    """Log `checkpoint` as a model of the active MLflow run and register it as a new version; a run has one, once.

    checkpoint: a safetensors file, or a folder of several that predict together.
    The model is stored as code plus weights, without a pickle: `mlflow.pyfunc.load_model(uri).predict(scan)` works
    for whoever has this package installed. A second call in the same run goes on where the first one was cut.
    """
    client, run = mlflow_client(settings), mlflow.active_run()
    if run is None:
        raise RuntimeError("register_checkpoint: found no active MLflow run; call it inside tracked_run")
    there = client.search_model_versions(f"name = '{settings.model_name}' and run_id = '{run.info.run_id}'")
    version = str(there[0].version) if there else log_model_files(checkpoint, settings.model_name)
    classes = ",".join(read_metadata(checkpoint).model.classes)
    for key, value in {CLASSES: classes, WEIGHTS: checkpoint_digest(checkpoint), **tags}.items():
        client.set_model_version_tag(settings.model_name, version, key, value)
    return model_version(f"models:/{settings.model_name}/{version}", settings)


def set_alias(version: ModelVersion, alias: str, settings: Settings) -> None:
    """Let `alias` name this version and no other."""
    mlflow_client(settings).set_registered_model_alias(version.name, alias, str(version.version))


def model_version(uri: str, settings: Settings) -> ModelVersion:
    """Return the version that `uri` means now.

    uri: models:/NAME@ALIAS or models:/NAME/VERSION; a bare number or alias is taken of the settings' model. Raises
    ValueError for another form, and LookupError when there is no such version, listing what there is.
    """
    if re.fullmatch(r"\d+", uri):
        uri = f"models:/{settings.model_name}/{uri}"
    elif re.fullmatch(r"[A-Za-z][\w-]*", uri):
        uri = f"models:/{settings.model_name}@{uri}"
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            f"model {uri!r}: expected models:/NAME@ALIAS, models:/NAME/VERSION, an alias or a version number"
        )
    client = mlflow_client(settings)
    try:
        if match["alias"]:
            found = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            found = client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        raise LookupError(f"{uri}: not in the registry ({_what_there_is(client)}); train or promote first") from error
    return _as_version(client, found.name, str(found.version))


def list_versions(settings: Settings) -> list[ModelVersion]:
    """Return every version of every registered model, newest first."""
    client = mlflow_client(settings)
    versions = [
        _as_version(client, found.name, str(found.version))
        for model in client.search_registered_models()
        for found in client.search_model_versions(f"name = '{model.name}'")
    ]
    return sorted(versions, key=lambda item: (item.name, -item.version))


def version_tags(version: ModelVersion, settings: Settings) -> dict[str, str]:
    """Return the tags of a version."""
    return dict(mlflow_client(settings).get_model_version(version.name, str(version.version)).tags)


def find_version(tags: Mapping[str, str], settings: Settings) -> ModelVersion | None:
    """Return the first version of the settings' model that has all these tags, None when there is none."""
    client = mlflow_client(settings)
    found = [
        int(one.version)
        for one in client.search_model_versions(f"name = '{settings.model_name}'")
        if tags.items() <= one.tags.items()
    ]
    return _as_version(client, settings.model_name, str(min(found))) if found else None


def alias_version(alias: str, settings: Settings) -> ModelVersion | None:
    """Return the version the settings' model carries under `alias`, None when nobody has it."""
    try:
        return model_version(f"models:/{settings.model_name}@{alias}", settings)
    except LookupError:
        return None


def training_cases(version: ModelVersion, settings: Settings) -> list[str]:
    """Return the ids of every case the version, or the one it was fine-tuned from, was trained on.

    `lits/*` stands for every case of a data set: of published weights nobody states which ones they have seen.
    """
    mlflow_client(settings)
    return str(mlflow.artifacts.load_text(f"runs:/{version.run_id}/{TRAINING_CASES}")).split()


def fetch_checkpoint(version: ModelVersion, settings: Settings) -> Path:
    """Return the local path of the version's checkpoint, downloaded when the artifact store is remote.

    It is a file, or for a version of several models that predict together the folder of their files. Whoever uses a
    model comes by here: the licence of weights that came from others is told, and every byte is compared with the
    digest of the registration. Raises WeightsChanged where they differ, FileNotFoundError without weights.
    """
    checkpoint = _stored(version, settings)
    _require_registered(version, checkpoint, settings)
    tell_licence(version.uri, checkpoint)
    return checkpoint


def _stored(version: ModelVersion, settings: Settings) -> Path:
    """Return the weights as the artifact store has them now: where they lie, or a fresh copy of a remote store's.

    Copies are kept in WORKSPACE/models/fetched, one for each content, so that a file in use is never replaced.
    """
    client = mlflow_client(settings)
    if _lies_here(version, client):
        return _weights_in(Path(mlflow.artifacts.download_artifacts(version.uri)), version)
    place = settings.workspace.absolute() / "models" / "fetched" / f"{version.name}-{version.version}"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=place) as aside:
        fresh = Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=aside))
        digest = checkpoint_digest(_weights_in(fresh, version))
        kept = place / digest[:16]
        if not kept.is_dir() or checkpoint_digest(_weights_in(kept, version)) != digest:
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(OSError):  # another process has just put the same there
                fresh.rename(kept)
    return _weights_in(kept, version)


def _weights_in(folder: Path, version: ModelVersion) -> Path:
    found = sorted((folder / "artifacts").glob("*.safetensors"))
    if not found:
        raise FileNotFoundError(f"{version.uri}: no safetensors file in its artifacts; register the model again")
    return found[0] if len(found) == 1 else folder / "artifacts"


def _lies_here(version: ModelVersion, client: MlflowClient) -> bool:
    """Return whether the artifact store is a folder that this process sees."""
    place = client.get_model_version_download_uri(version.name, str(version.version))
    return urlsplit(place).scheme in ("", "file")


def verify_weights(version: ModelVersion, settings: Settings, *, record: bool = False) -> tuple[str, str | None]:
    """Return the digest of the stored weights as they are now, and the one that was registered, None where none was.

    record: let the version have the digest of now where it has none; one that is there is never replaced.
    """
    checkpoint = _stored(version, settings)
    found, registered = checkpoint_digest(checkpoint), version_tags(version, settings).get(WEIGHTS)
    if record and registered is None:
        mlflow_client(settings).set_model_version_tag(version.name, str(version.version), WEIGHTS, found)
        registered = found
    return found, registered


def _require_registered(version: ModelVersion, checkpoint: Path, settings: Settings) -> None:
    expected, found = version_tags(version, settings).get(WEIGHTS), checkpoint_digest(checkpoint)
    if expected is None:
        tell(
            f"{version.uri}: registered without a digest of its weights, which nobody can verify; if you trust them: "
            f"ctfactory models verify {version.version} --record"
        )
    elif found != expected:
        raise WeightsChanged(
            f"{version.uri}: its weights have SHA-256 {found}, but {expected} were registered; do not use them, "
            f"restore {checkpoint} from a backup or train again"
        )


def _as_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    found = client.get_model_version(name, version)
    return ModelVersion(name, int(found.version), str(found.run_id), tuple(sorted(found.aliases or ())))


def _what_there_is(client: MlflowClient) -> str:
    names = [f"{model.name} with aliases {sorted(model.aliases)}" for model in client.search_registered_models()]
    return "registered: " + "; ".join(names) if names else "no model is registered"
