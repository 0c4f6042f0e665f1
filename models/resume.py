"""How a training run begins, and how it goes on after it was stopped: the same weights, optimiser and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import ModelMetadata, load_model, load_state, read_metadata
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
) -> tuple[UniversalModel, ModelMetadata]:
    """Return the network of a new run, seeded or read from the checkpoint `start_from`, and the run's metadata.

    Raises ValueError when `start_from` has another backbone or other classes than `model`.
    """
    trained = as_mapping(train)
    if start_from is not None:
        network, parent = load_model(start_from)
        if (parent.model.backbone, parent.model.classes) != (model.backbone, model.classes):
            raise ValueError(
                f"{start_from}: {parent.model.backbone} with classes {', '.join(parent.model.classes)}; these settings "
                f"ask for {model.backbone} with {', '.join(model.classes)}; use the checkpoint's backbone and classes"
            )
        return network, replace(parent, model=model, step=0, train=trained, table_versions=table_versions, extra=extra)
    torch.manual_seed(train.seed)
    if embeddings is None:
        embeddings = embed_classes(text_encoder(model.text_encoder), model.prompt, model.classes, cache_dir)
    network = build_model(model, embeddings)
    return network, ModelMetadata(
        model, embeddings.encoder, embeddings.prompt, embeddings.digest, 0, trained, table_versions, extra
    )


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
    expected = [tuple(parameter.shape) for group in optimizer.param_groups for parameter in group["params"]]
    found = {index: tuple(row["exp_avg"].shape) for index, row in states.items()}
    # a parameter that no batch has reached yet has no state
    wrong = [f"{index}: {shape}" for index, shape in found.items() if expected[index : index + 1] != [shape]]
    if wrong or not found:
        raise ValueError(
            f"{checkpoint}: optimiser state of {len(found)} parameters ({'; '.join(wrong) or 'none'} not as here), "
            f"expected one of the {len(expected)} that learn; freeze the same parts, or start in another folder"
        )
    optimizer.load_state_dict({"state": states, "param_groups": groups})
