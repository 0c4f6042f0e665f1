"""How a training run begins, and how it goes on after it was stopped: the same weights, optimiser and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import ModelMetadata, load_model, load_state, read_metadata
from models.extend import add_classes, freeze, transferred
from models.settings import ModelSettings, TrainSettings, as_mapping
from models.text import TextEmbeddings, embed_classes, text_encoder
from models.universal import UniversalModel, build_model

HARDWARE = ("device", "devices", "nodes", "threads", "readers", "save_every")
"""Training settings that a run may change when it goes on; the others decide what is learnt."""


def begin_model(
    model: ModelSettings,
    train: TrainSettings,
    start_from: Path | None,
    embeddings: TextEmbeddings | None,
    cache_dir: Path | None,
    table_versions: Mapping[str, int],
    extra: Mapping[str, str],
    transfer: bool = False,
) -> tuple[UniversalModel, ModelMetadata]:
    """Return the network of a new run, seeded or read from the checkpoint `start_from`, and the run's metadata.

    With the classes of `start_from` all of it is trained. With more classes behind them only a new head for these is,
    see `models.extend.add_classes`. transfer: other classes in place of its own, on its backbone. What `start_from` has
    in `extra`, such as a licence, is kept, and `extra` wins. Raises ValueError when `start_from` does not fit `model`.
    """
    trained = as_mapping(train)
    torch.manual_seed(train.seed)
    if start_from is not None:
        network, parent = load_model(start_from)
        network, begun = _begun(network, parent, model, embeddings, cache_dir, str(start_from), transfer=transfer)
        inherited = {**parent.extra, **extra}
        return network, replace(begun, step=0, train=trained, table_versions=table_versions, extra=inherited)
    if embeddings is None:
        embeddings = embed_classes(text_encoder(model.text_encoder), model.prompt, model.classes, cache_dir)
    network = build_model(model, embeddings)
    return network, ModelMetadata(
        model, embeddings.encoder, embeddings.prompt, embeddings.digest, 0, trained, table_versions, extra
    )


def _begun(
    network: UniversalModel,
    parent: ModelMetadata,
    model: ModelSettings,
    embeddings: TextEmbeddings | None,
    cache_dir: Path | None,
    where: str,
    *,
    transfer: bool,
) -> tuple[UniversalModel, ModelMetadata]:
    old = parent.model
    if transfer:
        if embeddings is None:
            embeddings = embed_classes(text_encoder(model.text_encoder), model.prompt, model.classes, cache_dir)
        return transferred(network, parent, model, embeddings)
    if old.backbone != model.backbone or old.classes != model.classes[: len(old.classes)]:
        raise ValueError(
            f"{where}: {old.backbone} with classes {', '.join(old.classes)}; these settings ask for {model.backbone} "
            f"with {', '.join(model.classes)}; use the checkpoint's backbone and its classes, new ones behind them"
        )
    if old.classes == model.classes:
        return network, replace(parent, model=model, frozen=())
    grid = [name for name in ("spacing_mm", "hu_window", "patch") if getattr(old, name) != getattr(model, name)]
    if grid:
        told = "; ".join(f"{name} {getattr(old, name)}, asked for {getattr(model, name)}" for name in grid)
        raise ValueError(f"{where}: {told}; the older classes were trained so and stay as they are, use its values")
    return add_classes(network, parent, model.classes[len(old.classes) :], embeddings, cache_dir)


def going_on(last: Path, network: UniversalModel, metadata: ModelMetadata) -> tuple[UniversalModel, int]:
    """Return the network and step of the checkpoint `last` where there is one, else `network` and 0.

    Raises ValueError when that checkpoint was trained with other settings, naming them.
    """
    if not last.is_file():
        return network, 0
    before = read_metadata(last)
    different = _differences(
        # settings that a checkpoint of an earlier version lacks had their defaults
        {**as_mapping(before.model), **as_mapping(TrainSettings()), **before.train},
        {**as_mapping(metadata.model), **metadata.train},
    )
    if before.extensions != metadata.extensions or before.frozen != metadata.frozen:
        different.append("extensions or frozen parts")
    if before.embeddings_digest != metadata.embeddings_digest:
        different.append(f"text embeddings ({before.encoder}, now {metadata.encoder})")
    if different:
        raise ValueError(f"{last}: a run with other settings: {'; '.join(different)}; use them or another folder")
    stored, _ = load_model(last)
    freeze(stored, metadata.frozen)
    return stored, before.step


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    names = sorted((before.keys() | now.keys()) - set(HARDWARE))
    return [f"{name} {before.get(name)}, now {now.get(name)}" for name in names if before.get(name) != now.get(name)]


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors by `<parameter number>.<name>`, for storing beside the weights."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, row in states.items() for name, value in row.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Give `optimizer` the state stored in `checkpoint`; ValueError when it has none or is of another network."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in load_state(checkpoint).items():
        index, name = key.split(".", 1)
        states.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    expected = sum(len(group["params"]) for group in groups)
    if len(states) != expected:
        raise ValueError(f"{checkpoint}: optimiser state of {len(states)} parameters, the network has {expected}")
    optimizer.load_state_dict({"state": states, "param_groups": groups})
