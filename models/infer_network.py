"""Networks that give logits of windows: batches that fit the memory, one precision, one or several models as one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from models.half_ops import in_two
from models.infer_windows import Box
from models.replay import Recorder
from models.scores import unshifted, variant
from models.settings import Precision
from models.universal import UniversalModel

Say = Callable[[str], None]
Watch = Callable[[Sequence[Tensor]], None]
"""Told the masks (B, C, X, Y, Z) bool of each opinion about the windows of a pass."""

_HALVES: dict[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_NO_MEMORY = ("can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""In the messages of errors of PyTorch's CPU allocator, cuDNN and cuBLAS, which have no class of their own."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked of a network: classes by name, and rows (R, 512) of text embeddings of anything else."""

    classes: tuple[str, ...]
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.classes) + (0 if self.rows is None else len(self.rows))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether PyTorch raised `error` because no memory was left, on a GPU or in the machine."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _NO_MEMORY)


def default_batch(device: torch.device, small: bool) -> int:
    """Return how many windows one pass takes: what keeps a GPU busy, and 2 on a CPU.

    small: whether copies in half precision see them, see `halved`: then a window of 96^3 takes Swin UNETR 0.8 GB on a
    GPU, and other forms take more; a slab of a scan often has 36. PyTorch's CPU convolutions are about three times
    faster on two windows than on one.
    """
    if device.type != "cuda":
        return 2
    gib = torch.cuda.get_device_properties(device).total_memory / 2**30
    if not small:
        return 8 if gib >= 40 else 4 if gib >= 20 else 2
    return 18 if gib >= 40 else 8 if gib >= 20 else 4 if gib >= 10 else 2


def default_precision(device: str) -> Precision:
    """Return 16-mixed for a GPU and 32-true for a CPU, which is slower in half precision unless it has units for it.

    float16 is as fast as bfloat16 and has three more binary digits, so masks are nearer to those of float32: DSC 0.9996
    against 0.9970 (docs/design/0030-prediction-on-a-gpu.md). `Predictor.stream` says what happens where it overflows.
    """
    return "16-mixed" if torch.device(device).type == "cuda" else "32-true"


def halved(model: UniversalModel, dtype: torch.dtype) -> UniversalModel:
    """Return a copy whose backbone has weights of `dtype`, half precision, in the layout of `models.half_ops`.

    It takes windows of that type, with one channel or `half_ops.in_two`.
    """
    found = copy.deepcopy(model)
    found.backbone.to(dtype=dtype, memory_format=torch.channels_last_3d)
    return found


class Network:
    """One model or an ensemble, in eval mode on a device.

    models: of the same classes and settings; an ensemble gives, for each window, the mean of their probabilities, as
    logits. device: `cpu`, `cuda`, `cuda:1`. batch: windows a pass, None for `default_batch`. precision: None for
    `default_precision`; logits are float32 always. variants: passes of the first model besides, over the windows as
    `scores.variant` changes them, for `watch` alone. hu_span: HU that the scaled values 0..1 stand for.
    Raises ValueError without models, for a batch below 1 and for an unknown precision.
    """

    def __init__(
        self,
        models: Sequence[UniversalModel],
        *,
        device: str = "cpu",
        batch: int | None = None,
        precision: Precision | None = None,
        variants: int = 0,
        hu_span: float = 1.0,
    ) -> None:
        if not models:
            raise ValueError("no model to predict with; give at least one")
        if batch is not None and batch < 1:
            raise ValueError(f"batch {batch}: expected at least one window")
        if precision is not None and precision not in get_args(Precision):
            raise ValueError(f"precision {precision!r}: expected one of {', '.join(get_args(Precision))}")
        self._models = [model.eval() for model in models]
        self._halved: dict[UniversalModel, UniversalModel] = {}
        self._half: torch.dtype | None = None  # of `_halved`
        self._recorder = Recorder()
        self._wanted = torch.device(device)
        self._precision = precision
        self.device = self._wanted
        self.batch = batch if batch is not None else default_batch(self._wanted, self._is_small())
        self.say: Say = logging.getLogger(__name__).warning
        self.watch: Watch | None = None
        self._variants, self._hu_span = variants, hu_span

    def _is_small(self) -> bool:
        """Whether copies in half precision will see the windows of every model."""
        halving = self._wanted.type == "cuda" and self.precision in _HALVES
        return halving and all(model.backbone.halves for model in self._models)

    @property
    def opinions(self) -> int:
        """How many masks of a window `watch` is told: one a model and one a variant."""
        return len(self._models) + self._variants

    @property
    def precision(self) -> Precision:
        """The precision in use, which the device decides unless it was given."""
        return self._precision or default_precision(self.device.type)

    @property
    def wanted_precision(self) -> Precision:
        """The precision a scan begins in, on the device asked for."""
        return self._precision or default_precision(self._wanted.type)

    @contextmanager
    def in_precision(self, precision: Precision) -> Iterator[None]:
        """Predict in another precision; the next scan's is what it was."""
        before, self._precision = self._precision, precision
        try:
            yield
        finally:
            self._precision = before

    def start(self, say: Say | None = None) -> None:
        """Begin a scan: on the device asked for, though the last scan may have ended on the CPU.

        say: told what is done when memory runs out; None logs a warning.
        """
        self.say = say or logging.getLogger(__name__).warning
        self._move(self._wanted)

    def logits(self, values: Tensor, windows: Sequence[Box], query: Query) -> Iterator[tuple[Box, Tensor]]:
        """Yield each window with its logits, (C, X, Y, Z) float32, for boxes of `values`, scaled HU (X, Y, Z).

        Where memory runs out, passes of half as many windows are tried, then the CPU. RuntimeError where one window
        does not fit there either.
        """
        waiting = list(windows)
        while waiting:
            passes = -(-len(waiting) // self.batch)
            group = waiting[: -(-len(waiting) // passes)]  # passes of about equal size
            try:
                batch = torch.stack([values[box] for box in group]).unsqueeze(1).to(self.device)  # (B, 1, X, Y, Z)
                with torch.cuda.device(batch.get_device()):  # to which kernels and recordings go; -1, a CPU, is no GPU
                    found = self._forward(batch, query)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._retreat(len(group), error)
                continue
            yield from zip(group, found, strict=True)
            waiting = waiting[len(group) :]

    @torch.inference_mode()
    def _forward(self, windows: Tensor, query: Query) -> Tensor:
        """Return logits (B, C, X, Y, Z) float32 of `windows` (B, 1, X, Y, Z)."""
        first, *others = self._models
        logits = self._one(first, windows, query)
        watch = self.watch if self.opinions > 1 else None
        masks = [] if watch is None else [logits > 0]
        if watch is not None:
            for number in range(1, self._variants + 1):
                seen = self._one(first, variant(windows, number, self._hu_span), query)
                masks.append(unshifted(seen > 0, number))
        if not others:
            if watch is not None:
                watch(masks)
            return logits
        # logs of the summed probabilities and of what they lack, which stay exact where a probability rounds to 1
        found, missing = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
        for model in others:
            logits = self._one(model, windows, query)
            if watch is not None:
                masks.append(logits > 0)
            found = torch.logaddexp(found, nn.functional.logsigmoid(logits))
            missing = torch.logaddexp(missing, nn.functional.logsigmoid(-logits))
        if watch is not None:
            watch(masks)
        return found - missing

    def _one(self, model: UniversalModel, windows: Tensor, query: Query) -> Tensor:
        half = _HALVES.get(self.precision)
        rows = None if query.rows is None else query.rows.to(self.device)
        twin = self._halved.get(model)
        if twin is None or half is None:
            with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
                logits: Tensor = model(windows, query.classes, rows=rows)
            return logits.float()
        seen = in_two(windows, half)
        if rows is None and self.opinions == 1:  # else several results are at hand at once
            return self._recorder.run(lambda x: twin(x, query.classes), seen, (twin, query.classes))
        found: Tensor = twin(seen, query.classes, rows=rows)
        return found

    def _retreat(self, tried: int, error: RuntimeError) -> None:
        """Make do with less memory than a pass of `tried` windows took; RuntimeError where there is no way."""
        self._recorder.clear()
        reason = str(error).splitlines()[0]
        if tried > 1:
            self.batch = max(1, tried // 2)
            self.say(f"out of memory on {self.device} with {tried} windows a pass; going on with {self.batch}")
        elif self.device.type != "cpu":
            self.say(f"out of memory on {self.device} with one window a pass; this scan goes on on the CPU, slowly")
            self._move(torch.device("cpu"))
        else:
            raise RuntimeError(
                f"one window does not fit into the memory of the machine ({reason}); free memory, or use a model of a "
                "smaller patch or backbone"
            ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _move(self, device: torch.device) -> None:
        try:
            for model in self._models:
                model.to(device)
        except RuntimeError as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
            self.say(
                f"out of memory on {device}: the network itself does not fit; this scan goes on on the CPU, slowly"
            )
            device = torch.device("cpu")
            for model in self._models:
                model.to(device)
        self.device = device
        half = _HALVES.get(self.precision) if device.type == "cuda" else None
        if half != self._half:
            self._half, self._halved = half, {}
            self._recorder.clear()
        if half is not None and not self._halved:
            self._halve(half)

    def _halve(self, half: torch.dtype) -> None:
        """Make copies in half precision; without the memory for them the models are run under autocast."""
        try:
            self._halved = {model: halved(model, half) for model in self._models if model.backbone.halves}
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self.say(f"out of memory on {self.device}: no room for weights in half precision; slower")
