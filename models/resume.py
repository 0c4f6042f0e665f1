"""How a training run begins, and how it goes on after it was stopped: the same weights, optimiser and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import ModelMetadata, load_model, read_metadata
from models.ema import MovingAverage
from models.extend import add_classes, transferred
from models.settings import ModelSettings, TrainSettings, as_mapping
from models.text import TextEmbeddings, embed_classes, text_encoder
from models.universal import UniversalModel, build_model

HARDWARE = ("device", "devices", "nodes", "threads", "readers", "save_every", "compile")
"""Training settings that a run may change when it goes on; the others decide what is learnt."""

EMA, SCALER = "ema.", "scaler."
"""Beginnings of keys of a training state."""


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
    new = model.classes[len(old.classes) :]
    if embeddings is None and (model.text_encoder, model.prompt) != (old.text_encoder, old.prompt):
        embeddings = embed_classes(text_encoder(model.text_encoder), model.prompt, new, cache_dir)
    return add_classes(network, parent, new, embeddings, cache_dir)


def going_on(last: Path, network: UniversalModel, metadata: ModelMetadata) -> tuple[UniversalModel, int]:
    """Return `network` and the step to go on from: weights and step of the checkpoint `last`, or as it is and 0.

    What is frozen in `network` stays frozen.
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
    network.load_state_dict(stored.state_dict())
    return network, before.step


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    names = sorted((before.keys() | now.keys()) - set(HARDWARE))
    return [f"{name} {before.get(name)}, now {now.get(name)}" for name in names if before.get(name) != now.get(name)]


def training_state(
    optimizer: torch.optim.Optimizer, average: MovingAverage | None, scaler: torch.amp.GradScaler | None
) -> dict[str, Tensor]:
    """Return what going on needs beside the weights, for storing beside them.

    Of the optimiser `<parameter number>.<name>`, of the moving average `ema.<name>`, of the loss scale `scaler.<name>`.
    Raises ValueError when the moving average is not finite.
    """
    states = optimizer.state_dict()["state"]
    found = {f"{index}.{name}": torch.as_tensor(value) for index, row in states.items() for name, value in row.items()}
    averaged = {} if average is None else average.state()
    for name, value in averaged.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"moving average: {name} holds NaN or infinite values; not saved, use an earlier checkpoint"
            )
    scale = {} if scaler is None else scaler.state_dict()
    found |= {f"{EMA}{name}": value for name, value in averaged.items()}
    return found | {f"{SCALER}{name}": torch.tensor(value, dtype=torch.float64) for name, value in scale.items()}


def restore_state(
    state: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
    scaler: torch.amp.GradScaler | None,
) -> None:
    """Give back what `training_state` returned; ValueError when it has none, or is of another network."""
    restore_optimizer(state, optimizer)
    averaged = {key.removeprefix(EMA): value for key, value in state.items() if key.startswith(EMA)}
    if average is not None:
        if not averaged:
            raise ValueError("checkpoint: no moving average in it, expected one as train.ema is set; start it anew")
        average.restore(averaged)
    scale = {key.removeprefix(SCALER): value.item() for key, value in state.items() if key.startswith(SCALER)}
    if scaler is not None and scale:
        whole = {"growth_interval", "_growth_tracker"}
        scaler.load_state_dict({name: int(value) if name in whole else value for name, value in scale.items()})


def restore_optimizer(state: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Give `optimizer` its part of a training state; ValueError when there is none or it is of other parameters."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        index, _, name = key.partition(".")
        if index.isdigit():
            states.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    expected = [tuple(parameter.shape) for group in optimizer.param_groups for parameter in group["params"]]
    found = {index: tuple(row["exp_avg"].shape) for index, row in states.items()}
    # a parameter that no batch has reached yet has no state
    wrong = [f"{index}: {shape}" for index, shape in found.items() if expected[index : index + 1] != [shape]]
    if wrong or not found:
        raise ValueError(
            f"checkpoint: optimiser state of {len(found)} parameters ({'; '.join(wrong) or 'none'} not as here), "
            f"expected one of the {len(expected)} that learn; freeze the same parts, or start in another folder"
        )
    optimizer.load_state_dict({"state": states, "param_groups": groups})
