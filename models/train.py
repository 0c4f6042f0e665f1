"""The training loop, on Lightning Fabric: begin or go on, step, save."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.fabric import Fabric

from models.checkpoint import ModelMetadata, load_state, save_checkpoint
from models.learner import Learner, TrainingDiverged
from models.loader import open_batches
from models.ranks import Job, launch, share
from models.resume import begin_model, going_on
from models.sampling import Packed, PatchSampler, PatchSource
from models.settings import ModelSettings, TrainSettings
from models.text import TextEmbeddings

__all__ = ["FINAL", "LAST", "TrainResult", "TrainingDiverged", "follow", "train"]

OnStep = Callable[[int, dict[str, float]], None]
LAST = "last.safetensors"
FINAL = "model.safetensors"
RECENT_STEPS = 20
"""Steps that the rates shown while training are taken over."""


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


class _Clock:
    """Seconds that this call has run and waited for patches, in all and over the last steps."""

    def __init__(self, patches_per_step: int) -> None:
        self._patches = patches_per_step
        self._waited = 0.0
        self._ends = deque([(time.perf_counter(), 0.0)], maxlen=RECENT_STEPS + 1)
        self._began = self._ends[0]
        self._steps = 0

    def waiting_for(self, batches: Iterator[Packed]) -> Packed:
        asked = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - asked
        return batch

    def step_done(self, left: int) -> dict[str, float]:
        """Return the present rates, and the seconds that `left` more steps take at them."""
        self._steps += 1
        self._ends.append((time.perf_counter(), self._waited))
        patches_per_s, share = self._rates(self._ends[0], len(self._ends) - 1)
        return {
            "patches_per_s": patches_per_s,
            "data_wait_share": share,
            "seconds_left": left * self._patches / patches_per_s,
        }

    def overall(self) -> tuple[float, float]:
        """Return patches a second and the share of time spent waiting for them, since the beginning."""
        return self._rates(self._began, self._steps)

    def _rates(self, since: tuple[float, float], steps: int) -> tuple[float, float]:
        now, waited = self._ends[-1]
        elapsed = max(now - since[0], 1e-9)
        return steps * self._patches / elapsed, (waited - since[1]) / elapsed


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
    transfer: bool = False,
) -> TrainResult:
    """Train a model and leave `model.safetensors` in `out_dir`; a run stopped earlier goes on from `last.safetensors`.

    Going on is exact: weights, optimiser, moving average, loss scale, batches and random numbers are what they would
    have been (on the same number of devices). on_step: called after each step, in the first process, with its number
    (from 1) and loss, bce, dice, lr, grad_norm, patches_per_s, data_wait_share, seconds_left. start_from: a checkpoint
    whose weights and embeddings to begin with; see `begin_model` for settings with more classes than it has, and for
    transfer. cache_dir: where text embeddings are kept. stop_after: end
    this call after that many steps; `last.safetensors` is then the checkpoint. Raises TrainingDiverged on a value that
    is not finite, ValueError when `out_dir` holds a run with other settings, and where gradients would be wrong (see
    `Backbone.check_training`).
    """
    settings, out = train_settings, Path(out_dir)
    fabric = launch(settings)
    job = metadata = None
    if fabric.is_global_zero:
        network, metadata = begin_model(
            model_settings, settings, start_from, embeddings, cache_dir, table_versions or {}, extra or {}, transfer
        )
        network.backbone.check_training(model_settings.patch, fabric.device, settings.precision)
        network, first = going_on(out / LAST, network, metadata)
        last = settings.steps if stop_after is None else min(settings.steps, first + stop_after)
        state = load_state(out / LAST) if first else {}
        job = Job(
            network,
            PatchSampler(source, replace(model_settings, classes=network.learnable), settings),
            settings,
            state,
            first,
            last,
        )
    return _run(fabric, share(fabric, job), metadata, out, on_step)


def follow(device: str = "auto", devices: int = 1, nodes: int = 1) -> None:
    """Take part in the training that another process, the first of a distributed run, calls `train` for.

    Everything comes from that process, which also keeps what is learnt; the numbers are those it was given.
    """
    meeting = launch(TrainSettings(device=device, devices=devices, nodes=nodes))
    job = share(meeting, None)
    _run(launch(job.settings), job, None, Path(), None)


def _run(fabric: Fabric, job: Job, metadata: ModelMetadata | None, out: Path, on_step: OnStep | None) -> TrainResult:
    """Do the steps of `job`; the process with `metadata` keeps what is learnt in `out`."""
    settings, first, last = job.settings, job.first, job.last
    learner = Learner(fabric, job)
    tail: deque[dict[str, float]] = deque(maxlen=max(1, (last - first) // 10))
    clock = _Clock(settings.batch * settings.accumulate * fabric.world_size)
    numbers = range(first * settings.accumulate, last * settings.accumulate)
    with open_batches(job.sampler, numbers, settings.readers, fabric.global_rank) as batches:
        for step in range(first, last):
            losses = learner.step(step, lambda: clock.waiting_for(batches))
            tail.append(losses)
            rates = clock.step_done(last - step - 1)
            if on_step is not None and fabric.is_global_zero:
                on_step(step + 1, {**losses, **rates})
            due = settings.save_every and (step + 1) % settings.save_every == 0
            if (due or step + 1 == last) and metadata is not None:
                save_checkpoint(out / LAST, learner.network, metadata.at(step + 1), learner.state())
    patches_per_s, data_wait_share = clock.overall()
    finished = last == settings.steps
    if finished and metadata is not None:
        save_checkpoint(out / FINAL, learner.result, metadata.at(last))
    fabric.barrier()
    means = {name: sum(row[name] for row in tail) / len(tail) for name in (tail[0] if tail else {})}
    checkpoint = out / (FINAL if finished else LAST)
    return TrainResult(checkpoint, means, last, patches_per_s, data_wait_share, first)
