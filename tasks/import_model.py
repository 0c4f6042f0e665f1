"""Import a published checkpoint, a file or a URL, as a registered version; the same file is imported once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import numpy as np
from numpy.typing import NDArray

from datasets_registry.sources.content import require_content
from datasets_registry.sources.download import download
from datasets_registry.sources.host_slots import only_one
from datasets_registry.sources.http import make_client, public_url
from datasets_registry.sources.partial import hash_file
from datasets_registry.sources.remote import Location, RemoteFile, Session
from datasets_registry.sources.spec import HttpsSource
from models.checkpoint import ModelMetadata, load_model
from models.licence import DIGEST, LICENCE, PUBLISHED_LICENCE, SOURCE
from models.published import PUBLISHED_CLASSES, TRAINED_ON, convert, published, sides_apart
from models.settings import as_mapping
from tasks.fetch import download_options
from tasks.model_card import refresh_model_card
from tasks.patience import patiently
from tasks.progress import ByteProgress
from tasks.registry import (
    CLASSES,
    TRAINING_CASES,
    ModelVersion,
    fetch_checkpoint,
    find_version,
    model_version,
    register_checkpoint,
    set_alias,
)
from tasks.settings import Settings
from tasks.tracking import log_parameters, tracked_run
from tasks.training_data import log_data_licences

ENCODER, BACKBONE = "encoder", "backbone"


@dataclass(frozen=True)
class ImportOutcome:
    """The version the file is registered as. known: it was before. doubts: what a person should look at."""

    model: ModelVersion
    metadata: ModelMetadata
    known: bool
    doubts: tuple[str, ...] = ()


def import_model(
    source: str,
    backbone: str,
    settings: Settings,
    *,
    classes: Sequence[str] = PUBLISHED_CLASSES,
    expected_sha256: str | None = None,
) -> ImportOutcome:
    """Register the authors' checkpoint at `source`, a path or a URL, as a version aliased `published-<backbone>`.

    backbone: `unet` or `swinunetr`. classes: what the file's outputs are, in its order. A download goes on where it
    was cut. A second import of the same file finds the version. Raises FileNotFoundError, ValueError for a file with
    code in it, another digest, other classes or weights that do not fit, and what a download raises.
    """
    published(backbone)
    wanted = None if expected_sha256 is None else expected_sha256.lower()
    folder = settings.workspace.absolute() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock", "an import of a model"):
        file, shown = _brought(source, folder, settings, wanted)
        digest = hash_file(file).sha256
        if wanted not in (None, digest):
            raise ValueError(f"{shown}: SHA-256 {digest}, expected {wanted}; this is another file, do not use it")
        tags = {
            SOURCE: shown,
            DIGEST: digest,
            LICENCE: PUBLISHED_LICENCE.name,
            BACKBONE: published(backbone).backbone,
            CLASSES: ",".join(classes),
        }
        there = find_version({name: tags[name] for name in (DIGEST, BACKBONE, CLASSES)}, settings)
        version = there or _register(file, backbone, tags, settings)
    model, metadata = load_model(fetch_checkpoint(version, settings))
    doubts = _doubts(metadata, model.organ_embedding.numpy())
    return ImportOutcome(version, metadata, there is not None, doubts)


def _register(file: Path, backbone: str, tags: dict[str, str], settings: Settings) -> ModelVersion:
    aside = settings.workspace.absolute() / "models" / f"universal-{backbone}.safetensors"  # MLflow keeps a copy
    try:
        entries = PUBLISHED_LICENCE.entries(tags[SOURCE], tags[DIGEST])
        metadata = convert(file, backbone, aside, entries, tags[CLASSES].split(","))
        with tracked_run(settings, f"import {backbone}", kind="import", tags=tags):
            log_parameters({"model": as_mapping(metadata.model)})
            seen = [f"{dataset}/*" for dataset in TRAINED_ON]
            mlflow.log_text("\n".join(seen), TRAINING_CASES)
            log_data_licences(seen, settings)
            encoder = {ENCODER: metadata.encoder, "embeddings_digest": metadata.embeddings_digest}
            version = patiently(
                lambda: register_checkpoint(aside, settings, tags=tags | encoder),
                settings.mlflow_patience_s,
                f"registering {tags[SOURCE]}",
            )
            refresh_model_card(version, settings)
    finally:
        aside.unlink(missing_ok=True)
    set_alias(version, f"published-{backbone}", settings)
    return model_version(version.uri, settings)


def _doubts(metadata: ModelMetadata, rows: NDArray[np.float32]) -> tuple[str, ...]:
    apart = sides_apart(metadata.model.classes, rows)
    if not apart:
        return ()
    return (
        f"the embeddings of {', '.join(apart)} are not nearest to those of the other side, as CLIP's are; is the order "
        "of the classes that of the file?",
    )


def _brought(source: str, folder: Path, settings: Settings, expected_sha256: str | None) -> tuple[Path, str]:
    """Return the file and how it is named: a URL without secrets, or a file's name without its folders."""
    if not re.match(r"https?://", source):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{source}: no such file; give the .pth file of the authors, or its URL")
        with path.open("rb") as stream:
            require_content(path.name, stream.read(1024), source, "", "download the file itself, not its page")
        return path, path.name
    name = Path(unquote(urlsplit(source).path)).name or "checkpoint.pth"
    spec = HttpsSource(name=name, url=source, sha256=expected_sha256)
    remote = RemoteFile(name, spec, public_url(source), lambda: Location(source), sha256=expected_sha256)
    target = folder / "downloads" / sha256(remote.origin.encode()).hexdigest()[:12] / name
    if not target.is_file():
        options = download_options(settings)
        with make_client(options.timeout_s) as client:
            download(remote, target, Session(client, options), progress=ByteProgress(f"fetch {name}"))
    return target, remote.origin
