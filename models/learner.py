"""One optimiser step: forward, masked loss, backward, clipping, and nothing of it when a number is not finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from models.ema import MovingAverage
from models.loss import LossParts, masked_loss
from models.ranks import Job, gather
from models.resume import restore_state, training_state
from models.sampling import Batch, Packed
from models.universal import UniversalModel

LOWEST_SCALE = 1.0
"""Loss scale of half precision below which an overflow is no longer the scale's fault."""


class TrainingDiverged(RuntimeError):
    """The loss or a gradient is not finite; names step, cases and classes. The last checkpoint is from before."""


@dataclass(frozen=True, eq=False)
class _Part:
    """What is kept of a batch until its step is done, to say what was wrong with it."""

    case_ids: tuple[str, ...]
    classes: tuple[str, ...]
    image: Tensor
    parts: LossParts

    def complaint(self) -> str:
        """Name scans with an image that is not finite, else pairs of case and class; empty when there are none."""
        images = (~torch.isfinite(self.image)).flatten(1).sum(1).tolist()
        bad = [f"{self.case_ids[row]}: {count} voxels" for row, count in enumerate(images) if count]
        if bad:
            return f"the image is not finite in {'; '.join(bad)}"
        wrong = (~torch.isfinite(self.parts.pair_loss)).nonzero().flatten().tolist()
        pairs = sorted({(int(self.parts.pairs[i, 0]), int(self.parts.pairs[i, 1])) for i in wrong})
        named = [f"{self.case_ids[b]}: {self.classes[u]}" for b, u in pairs]
        return f"the loss is not finite for {'; '.join(named)}" if named else ""


class Learner:
    """A network with its optimiser and moving average, set up on this process's device."""

    def __init__(self, fabric: Fabric, job: Job) -> None:
        self.fabric, self.network, self.settings = fabric, job.network, job.settings
        raw = torch.optim.AdamW(
            learnt_parameters(job.network), lr=job.settings.lr, weight_decay=job.settings.weight_decay
        )
        self._raw = raw
        self._model, self._optimizer = fabric.setup(job.network, raw)
        # the first process keeps; the others have the same weights
        keeps = job.settings.ema > 0 and fabric.is_global_zero
        self.ema = MovingAverage(job.network, job.settings.ema) if keeps else None
        self._scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
        if job.first:
            restore_state(job.state, raw, self.ema, self._scaler)
        if job.settings.compile:
            job.network.backbone.compile()  # in place: parameters keep their names
        job.network.train()

    @property
    def result(self) -> UniversalModel:
        """The network to keep: the moving average where there is one."""
        return self.network if self.ema is None else self.ema.network

    def state(self) -> dict[str, Tensor]:
        """Return what going on needs beside the weights."""
        return training_state(self._raw, self.ema, self._scaler)

    def step(self, number: int, next_batch: Callable[[], Packed]) -> dict[str, float]:
        """Do step `number`, counted from 0, and return its losses, mean over all processes.

        Raises TrainingDiverged, in every process, before a value that is not finite reaches the weights.
        """
        settings, fabric = self.settings, self.fabric
        # whatever is random in the network depends on step and process alone, so that a run can go on exactly
        torch.manual_seed((settings.seed * 1_000_003 + number) * 4096 + fabric.global_rank)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr_at(number)
        losses: Tensor | float = 0.0  # (3,) on the device: loss, bce, dice
        seen: list[_Part] = []
        for part in range(settings.accumulate):
            batch = next_batch().to(fabric.device).unpack()  # augmented on the device
            with fabric.no_backward_sync(self._model, enabled=part < settings.accumulate - 1):
                loss, parts = self._loss(batch)
                fabric.backward(loss / settings.accumulate)
            losses = losses + torch.stack([loss.detach(), parts.bce, parts.dice]).float() / settings.accumulate
            seen.append(_Part(batch.case_ids, batch.classes, batch.image, parts))
        norm = fabric.clip_gradients(
            self._model, self._optimizer, max_norm=settings.clip_norm or float("inf"), error_if_nonfinite=False
        )
        # the one place where the host waits for the device
        mean, bce, dice, grad_norm = self._on_host(losses, norm)
        self._check(number, seen, mean, grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.network)
        return {"loss": mean, "bce": bce, "dice": dice, "lr": settings.lr_at(number), "grad_norm": grad_norm}

    def _loss(self, batch: Batch) -> tuple[Tensor, LossParts]:
        settings = self.settings
        logits = self._model(batch.image, batch.classes, batch.annotated)  # (B, U, X, Y, Z)
        weights = [float(settings.loss_weights.get(name, 1.0)) for name in batch.classes]
        return masked_loss(
            logits,
            batch.target,
            batch.annotated,
            batch.valid,
            class_weights=torch.tensor(weights) if settings.loss_weights else None,
            pair_weights=batch.weights,
            bce_weight=settings.bce_weight,
            dice_weight=settings.dice_weight,
            balance=settings.balance,
        )

    def _on_host(self, losses: Tensor | float, norm: Tensor | None) -> list[float]:
        if norm is None or not isinstance(losses, Tensor):
            raise RuntimeError(f"gradient norm {norm}, losses {losses}: expected tensors; use another Fabric strategy")
        values = torch.cat([losses, norm.detach().reshape(1).to(losses)])
        if self.fabric.world_size > 1:  # the norm is that of the summed gradients, the same everywhere
            values = self.fabric.all_reduce(values, reduce_op="mean")  # type: ignore[assignment]
        found: list[float] = values.tolist()
        return found

    def _check(self, number: int, seen: list[_Part], loss: float, grad_norm: float) -> None:
        finite = torch.isfinite(torch.tensor([loss, grad_norm])).tolist()
        if all(finite):
            return
        # half precision tries large loss scales, whose overflow the scaler answers by skipping the step
        if finite[0] and self._scaler is not None and self._scaler.get_scale() >= LOWEST_SCALE:
            return
        complaints = [text for text in (part.complaint() for part in seen) if text]
        cases = [case_id for part in seen for case_id in part.case_ids]
        everywhere = gather(self.fabric, (complaints, cases))
        named = "; ".join(text for found, _ in everywhere for text in found)
        what = named or f"the gradient is not finite for {', '.join(name for _, names in everywhere for name in names)}"
        raise TrainingDiverged(
            f"step {number + 1}: {what}; expected finite numbers; check these scans' HU values, or lower "
            "the learning rate and start again from the last checkpoint"
        )


def learnt_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, in the network's order; ValueError when all are."""
    found = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not found:
        raise ValueError("training: every parameter is frozen, expected one that learns; set requires_grad on some")
    return found
