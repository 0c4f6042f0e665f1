"""Models on disk: safetensors with everything needed to use them again in the header; never pickle."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from datasets_registry.taxonomy import all_classes, class_info
from datasets_registry.taxonomy_own import TAXONOMY_VARIABLE
from models.backbones import build_backbone
from models.settings import ModelSettings, as_mapping, model_settings
from models.text import array_digest
from models.universal import UniversalModel

FORMAT = "ct-label-factory-model-2"
READABLE = ("ct-label-factory-model-1", FORMAT)
"""Formats that this version reads; the first had no extensions and nothing frozen."""


@dataclass(frozen=True)
class Extension:
    """Classes that were added to a trained model: their names, and where their text rows come from."""

    classes: tuple[str, ...]
    encoder: str
    prompt: str
    embeddings_digest: str


@dataclass(frozen=True)
class ModelMetadata:
    """What a checkpoint says about itself, beside the weights.

    model: its classes are those of the model's own head, then those of each extension. encoder, prompt,
    embeddings_digest: where the rows of `organ_embedding` come from. step: optimiser steps done. train: the training
    settings. table_versions: versions of the tables the data was read from. extra: strings. extensions: what was added
    later. frozen: the parts of the network that the last training left alone.
    """

    model: ModelSettings
    encoder: str
    prompt: str
    embeddings_digest: str
    step: int = 0
    train: Mapping[str, Any] = field(default_factory=dict)
    table_versions: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    extensions: tuple[Extension, ...] = ()
    frozen: tuple[str, ...] = ()

    @property
    def own_classes(self) -> tuple[str, ...]:
        """The classes of the model's own head, which are not those of an extension."""
        return self.model.classes[: len(self.model.classes) - sum(len(one.classes) for one in self.extensions)]

    def at(self, step: int) -> ModelMetadata:
        """Return the metadata of the same run after `step` steps."""
        return replace(self, step=step)

    def as_json(self) -> str:
        """Return the metadata as one line of JSON."""
        values = {
            **self.__dict__,
            "model": as_mapping(self.model),
            "extensions": [vars(one) for one in self.extensions],
            "indices": [class_info(name).index for name in self.model.classes],
            "format": FORMAT,
        }
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


def members(path: Path) -> list[Path]:
    """Return the files of a checkpoint: itself, or those of a folder of models that predict together, by name.

    Raises FileNotFoundError for a folder without any.
    """
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not found:
        raise FileNotFoundError(f"{path}: no .safetensors file in it, expected the models of an ensemble")
    return found


def read_metadata(path: Path) -> ModelMetadata:
    """Return a checkpoint's metadata without reading its weights; of an ensemble's folder, that of its first member.

    Raises FileNotFoundError, or ValueError for a pickle (which may hold code), a torn file or a foreign one.
    """
    path = members(path)[0]
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
    return _metadata(path, json.loads(text))


def _metadata(path: Path, values: dict[str, Any]) -> ModelMetadata:
    """Return what the header says; ValueError where its classes are not those of the class table here."""
    if (found := values.pop("format")) not in READABLE:
        raise ValueError(f"{path}: format {found!r}, expected one of {', '.join(READABLE)}; use a matching version")
    names = values["model"]["classes"]
    _require_same_table(path, names, values.pop("indices", None))
    extensions = tuple(Extension(**{**one, "classes": tuple(one["classes"])}) for one in values.pop("extensions", ()))
    added = [name for one in extensions for name in one.classes]
    if added and (len(added) >= len(names) or names[-len(added) :] != added):
        raise ValueError(
            f"{path}: its {len(names)} classes end with {', '.join(names[-len(added) :])}, but its extensions are of "
            f"{', '.join(added)}; do not use it"
        )
    frozen = tuple(values.pop("frozen", ()))
    settings = model_settings(values.pop("model"), str(path))
    return ModelMetadata(model=settings, extensions=extensions, frozen=frozen, **values)


def _require_same_table(path: Path, names: Sequence[str], indices: Sequence[int] | None) -> None:
    """Raise ValueError unless the class table here has these classes, under the indices they were trained by."""
    table = {info.name: info.index for info in all_classes()}
    if unknown := [name for name in names if name not in table]:
        raise ValueError(
            f"{path}: its classes {', '.join(unknown)} are not among the {len(table)} of the class table here; name "
            f"the table that declares them in {TAXONOMY_VARIABLE}"
        )
    moved = [(name, index) for name, index in zip(names, indices or (), strict=False) if table[name] != index]
    if moved:
        told = ", ".join(f"{name} is class {table[name]}, the model was trained with {index}" for name, index in moved)
        raise ValueError(
            f"{path}: another class table ({told}); masks would be mixed up, use the table of its training"
        )


def load_model(path: Path | str, device: str = "cpu") -> tuple[UniversalModel, ModelMetadata]:
    """Return the model in eval mode on `device`, and its metadata.

    Raises ValueError listing missing, unexpected or misshapen weights, or when the embeddings are not those recorded.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: an ensemble of {len(members(path))} models, expected one; give one of its members")
    metadata = read_metadata(path)
    with safe_open(path, framework="pt") as opened:
        stored = _tensors(opened, "model.")
    own = _rows(path, stored, "organ_embedding", metadata.own_classes, metadata.embeddings_digest)
    model = UniversalModel(build_backbone(metadata.model.backbone), own, metadata.own_classes)
    for number, one in enumerate(metadata.extensions):
        key = f"extensions.{number}.organ_embedding"
        model.add_extension(_rows(path, stored, key, one.classes, one.embeddings_digest), one.classes)
    load_weights(model, stored, str(path))
    return model.to(device).eval(), metadata


def _rows(path: Path, stored: Mapping[str, Tensor], key: str, classes: Sequence[str], digest: str) -> Tensor:
    """Return the text rows stored under `key`; ValueError unless there is one a class and they are those recorded."""
    rows = stored.get(key)
    if rows is None or len(rows) != len(classes):
        found = "no" if rows is None else str(len(rows))
        raise ValueError(
            f"{path}: {key} holds {found} class embeddings for {len(classes)} classes ({', '.join(classes)}); do not "
            "use it"
        )
    if array_digest(rows.numpy()) != digest:
        raise ValueError(f"{path}: {key}: class embeddings differ from the recorded {digest[:12]}; do not use it")
    return rows


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
