"""Models on disk: safetensors with everything needed to use them again in the header; never pickle."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.backbones import build_backbone
from models.settings import ModelSettings, as_mapping, model_settings
from models.text import array_digest
from models.universal import UniversalModel

FORMAT = "ct-label-factory-model-1"


@dataclass(frozen=True)
class ModelMetadata:
    """What a checkpoint says about itself, beside the weights.

    encoder, prompt, embeddings_digest: where the rows of `organ_embedding` come from. step: optimiser steps done.
    train: the training settings. table_versions: versions of the tables the data was read from. extra: strings.
    """

    model: ModelSettings
    encoder: str
    prompt: str
    embeddings_digest: str
    step: int = 0
    train: Mapping[str, Any] = field(default_factory=dict)
    table_versions: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    def at(self, step: int) -> ModelMetadata:
        """Return the metadata of the same run after `step` steps."""
        return replace(self, step=step)

    def as_json(self) -> str:
        """Return the metadata as one line of JSON."""
        values = {**self.__dict__, "model": as_mapping(self.model), "format": FORMAT}
        return json.dumps({key: dict(v) if isinstance(v, Mapping) else v for key, v in values.items()}, sort_keys=True)


def save_checkpoint(
    path: Path, model: UniversalModel, metadata: ModelMetadata, state: Mapping[str, Tensor] | None = None
) -> Path:
    """Write weights, metadata and optionally a training state under `path`, aside first and then renamed; return it.

    Raises ValueError when a weight is not finite: such a model must not be stored.
    """
    tensors = {f"model.{name}": value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name} holds NaN or infinite values; not saved, use an earlier checkpoint")
    tensors |= {f"state.{name}": value.detach().contiguous().cpu() for name, value in (state or {}).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        save_file(tensors, aside, {"ctfactory": metadata.as_json()})
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def read_metadata(path: Path) -> ModelMetadata:
    """Return a checkpoint's metadata without reading its weights.

    Raises FileNotFoundError, or ValueError for a pickle (which may hold code), a torn file or a foreign one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; give the .safetensors file that training wrote")
    with path.open("rb") as stream:
        head = stream.read(9)
    # Safetensors begin with the length of a JSON header, whose lowest bytes can be any, also those of a pickle.
    headed = head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    if not headed and (head[:2] == b"PK" or head[:1] == b"\x80"):
        raise ValueError(f"{path}: a pickle, which can run code when read; expected safetensors; import it instead")
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get("ctfactory")
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from error
    if text is None:
        raise ValueError(f"{path}: safetensors without our metadata; expected a model that training or import wrote")
    values = json.loads(text)
    if values.pop("format") != FORMAT:
        raise ValueError(f"{path}: format {json.loads(text)['format']!r}, expected {FORMAT!r}; use a matching version")
    return ModelMetadata(**{**values, "model": model_settings(values["model"], str(path))})


def load_model(path: Path | str, device: str = "cpu") -> tuple[UniversalModel, ModelMetadata]:
    """Return the model in eval mode on `device`, and its metadata.

    Raises ValueError listing missing, unexpected or misshapen weights, or when the embeddings are not those recorded.
    """
    path = Path(path)
    metadata = read_metadata(path)
    with safe_open(path, framework="pt") as opened:
        stored = _tensors(opened, "model.")
    embeddings = stored.get("organ_embedding")
    if embeddings is None or len(embeddings) != len(metadata.model.classes):
        found = "no" if embeddings is None else str(len(embeddings))
        raise ValueError(f"{path}: {found} class embeddings for {len(metadata.model.classes)} classes; do not use it")
    if array_digest(embeddings.numpy()) != metadata.embeddings_digest:
        raise ValueError(f"{path}: class embeddings differ from the recorded {metadata.embeddings_digest[:12]}")
    model = UniversalModel(build_backbone(metadata.model.backbone), embeddings, metadata.model.classes)
    load_weights(model, stored, str(path))
    return model.to(device).eval(), metadata


def load_weights(model: UniversalModel, stored: Mapping[str, Tensor], where: str) -> None:
    """Copy `stored` into the model; a ValueError lists every missing, unexpected or misshapen key."""
    expected = model.state_dict()
    problems = [f"missing {key}" for key in expected.keys() - stored.keys()]
    problems += [f"unexpected {key}" for key in stored.keys() - expected.keys()]
    problems += [
        f"{key} {tuple(stored[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected.keys() & stored.keys()
        if stored[key].shape != expected[key].shape
    ]
    if problems:
        raise ValueError(f"{where}: weights do not fit the network: {'; '.join(sorted(problems))}")
    model.load_state_dict(dict(stored))


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the training state stored beside the weights; empty when there is none."""
    with safe_open(path, framework="pt") as opened:
        return _tensors(opened, "state.")


def _tensors(opened: Any, prefix: str) -> dict[str, Tensor]:
    names = [name for name in list(opened.keys()) if name.startswith(prefix)]
    return {name.removeprefix(prefix): opened.get_tensor(name) for name in names}
