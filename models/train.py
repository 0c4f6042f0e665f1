"""The training loop, on Lightning Fabric: begin or go on, step, save."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.fabric import Fabric
from lightning.fabric.wrappers import _FabricModule
from torch import nn

from models.checkpoint import save_checkpoint
from models.loader import open_batches
from models.loss import masked_loss
from models.resume import begin_model, going_on, optimizer_state, restore_optimizer
from models.sampling import Packed, PatchSampler, PatchSource
from models.settings import ModelSettings, TrainSettings
from models.text import TextEmbeddings

OnStep = Callable[[int, dict[str, float]], None]
LAST = "last.safetensors"
FINAL = "model.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """What a training run left behind.

    checkpoint: the final model. final_losses: mean over the last tenth of this call's steps, by part. steps: done in
    all. patches_per_s: over this call. data_wait_share: share of its time spent waiting for patches, 0-1.
    resumed_from: the step this call began at.
    """

    checkpoint: Path
    final_losses: dict[str, float]
    steps: int
    patches_per_s: float
    data_wait_share: float
    resumed_from: int = 0


class TrainingDiverged(RuntimeError):
    """The loss or a gradient is not finite; names step, cases and classes. The last checkpoint is from before."""


@dataclass
class _Clock:
    """Seconds this call has run and waited for patches."""

    began: float = field(default_factory=time.perf_counter)
    waited: float = 0.0

    def next_batch(self, batches: Iterator[Packed]) -> Packed:
        asked = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - asked
        return batch

    @property
    def elapsed(self) -> float:
        return max(time.perf_counter() - self.began, 1e-9)


def train(
    source: PatchSource,
    model_settings: ModelSettings,
    train_settings: TrainSettings,
    out_dir: Path | str,
    on_step: OnStep | None = None,
    *,
    start_from: Path | None = None,
    embeddings: TextEmbeddings | None = None,
    cache_dir: Path | None = None,
    table_versions: Mapping[str, int] | None = None,
    extra: Mapping[str, str] | None = None,
    stop_after: int | None = None,
) -> TrainResult:
    """Train a model and leave `model.safetensors` in `out_dir`; a run stopped earlier goes on from `last.safetensors`.

    on_step: called after each step with its number (from 1) and loss, bce, dice, lr, grad_norm. start_from: a
    checkpoint whose weights and embeddings to begin with. cache_dir: where text embeddings are kept. stop_after: end
    this call after that many steps; `last.safetensors` is then the checkpoint. Raises TrainingDiverged on a value that
    is not finite, ValueError when `out_dir` holds a run with other settings.
    """
    settings, out = train_settings, Path(out_dir)
    fabric = _launch(settings)
    network, metadata = begin_model(
        model_settings, settings, start_from, embeddings, cache_dir, table_versions or {}, extra or {}
    )
    network, first = going_on(out / LAST, network, metadata)
    raw = torch.optim.AdamW(learnt_parameters(network), lr=settings.lr, weight_decay=settings.weight_decay)
    model, optimizer = fabric.setup(network, raw)
    if first:
        restore_optimizer(raw, out / LAST)
    last = settings.steps if stop_after is None else min(settings.steps, first + stop_after)
    sampler = PatchSampler(source, model_settings, settings)
    tail: deque[dict[str, float]] = deque(maxlen=max(1, (last - first) // 10))
    train_mode(network)
    clock = _Clock()
    numbers = range(first * settings.accumulate, last * settings.accumulate)
    with open_batches(sampler, numbers, settings.readers, fabric.global_rank) as batches:
        for step in range(first, last):
            losses = _step(fabric, model, optimizer, clock, batches, model_settings, settings, step)
            tail.append(losses)
            if on_step is not None:
                on_step(step + 1, losses)
            due = settings.save_every and (step + 1) % settings.save_every == 0
            if (due or step + 1 == last) and fabric.is_global_zero:
                save_checkpoint(out / LAST, network, metadata.at(step + 1), optimizer_state(raw))
    elapsed = clock.elapsed
    finished = last == settings.steps
    if finished and fabric.is_global_zero:
        save_checkpoint(out / FINAL, network, metadata.at(last))
    fabric.barrier()
    patches = (last - first) * settings.batch * settings.accumulate * fabric.world_size
    means = {name: sum(row[name] for row in tail) / len(tail) for name in (tail[0] if tail else {})}
    checkpoint = out / (FINAL if finished else LAST)
    return TrainResult(checkpoint, means, last, patches / elapsed, clock.waited / elapsed, first)


def learnt_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, in the network's order; ValueError when all are."""
    found = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not found:
        raise ValueError("training: every parameter is frozen, expected one that learns; set requires_grad on some")
    return found


def train_mode(network: nn.Module) -> None:
    """Set the network to train, but leave its frozen parts in eval mode: their running statistics must not move."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _launch(settings: TrainSettings) -> Fabric:
    if settings.threads:
        torch.set_num_threads(settings.threads)
    fabric = Fabric(
        accelerator=settings.device, devices=settings.devices, num_nodes=settings.nodes, precision=settings.precision
    )
    fabric.launch()
    return fabric


def _step(
    fabric: Fabric,
    model: _FabricModule,
    optimizer: torch.optim.Optimizer,
    clock: _Clock,
    batches: Iterator[Packed],
    model_settings: ModelSettings,
    settings: TrainSettings,
    step: int,
) -> dict[str, float]:
    """Do one optimiser step and return its losses; nothing is updated when a value is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = settings.lr_at(step)
    losses = {"loss": 0.0, "bce": 0.0, "dice": 0.0}
    seen: list[str] = []
    for part in range(settings.accumulate):
        batch = clock.next_batch(batches).to(fabric.device).unpack()
        seen += batch.case_ids
        with fabric.no_backward_sync(model, enabled=part < settings.accumulate - 1):
            logits = model(batch.image, batch.classes, batch.annotated)  # (B, U, X, Y, Z)
            loss, parts = masked_loss(
                logits,
                batch.target,
                batch.annotated,
                batch.valid,
                bce_weight=settings.bce_weight,
                dice_weight=settings.dice_weight,
                balance=settings.balance,
            )
            wrong = (~torch.isfinite(parts.pair_loss)).nonzero().flatten().tolist()
            if wrong:
                found = sorted({(int(parts.pairs[i, 0]), int(parts.pairs[i, 1])) for i in wrong})
                named = [f"{batch.case_ids[b]}: {model_settings.classes[batch.classes[u]]}" for b, u in found]
                raise TrainingDiverged(_diverged(step, "the loss", "; ".join(named)))
            fabric.backward(loss / settings.accumulate)
        for name, value in (("loss", float(loss.detach())), ("bce", parts.bce), ("dice", parts.dice)):
            losses[name] += value / settings.accumulate
    largest = settings.clip_norm or float("inf")
    norm = fabric.clip_gradients(model, optimizer, max_norm=largest, error_if_nonfinite=False)
    # half precision tries large loss scales, whose overflow the scaler answers by skipping the step
    if norm is None or (not bool(torch.isfinite(norm)) and settings.precision != "16-mixed"):
        raise TrainingDiverged(_diverged(step, "the gradient", ", ".join(seen)))
    optimizer.step()
    optimizer.zero_grad()
    return {**losses, "lr": settings.lr_at(step), "grad_norm": float(norm)}


def _diverged(step: int, what: str, where: str) -> str:
    return (
        f"step {step + 1}: {what} is not finite for {where}; expected finite numbers; check these scans' HU values, or "
        "lower the learning rate and start again from the last checkpoint"
    )
