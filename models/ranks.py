"""The processes of one training: each device has its own, the first decides and keeps, the others follow it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from models.sampling import PatchSampler
from models.settings import TrainSettings
from models.universal import UniversalModel


@dataclass(frozen=True, eq=False)
class Job:
    """What every process of a training must agree on. The first process makes it and sends it to the others.

    state: of optimiser, average and loss scale, for going on. first, last: steps done before and after this call.
    """

    network: UniversalModel
    sampler: PatchSampler
    settings: TrainSettings
    state: Mapping[str, Tensor]
    first: int
    last: int


def launched_rank() -> int | None:
    """Return the number of this process under `torchrun`, 0 for the one that decides; None when started plainly."""
    return int(os.environ["RANK"]) if torch.distributed.is_torchelastic_launched() else None


def as_launched(settings: TrainSettings) -> TrainSettings:
    """Return `settings` with the numbers of devices and nodes that `torchrun` has started processes for."""
    if launched_rank() is None:
        return settings
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    return replace(settings, devices=devices, nodes=int(os.environ["WORLD_SIZE"]) // devices)


def launch(settings: TrainSettings) -> Fabric:
    """Return a Fabric that has found the other processes of the run, if there are any."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    settings = as_launched(settings)
    several = settings.devices * settings.nodes > 1
    fabric = Fabric(
        accelerator=settings.device,
        devices=settings.devices,
        num_nodes=settings.nodes,
        precision=settings.precision,
        # a batch may annotate classes of one head only, and leave the other heads without a gradient
        strategy="ddp_find_unused_parameters_true" if several else "auto",
    )
    fabric.launch()
    return fabric


def share(fabric: Fabric, job: Job | None) -> Job:
    """Return the first process's job, in every process; those that follow give None."""
    shared: Job = job if fabric.world_size == 1 else fabric.broadcast(job)  # type: ignore[assignment]
    return shared


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """Return the `value` of every process, by rank."""
    if fabric.world_size == 1:
        return [value]
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, value)
    return found
