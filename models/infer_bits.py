"""Class bits of finished slabs: made where the logits are, and handed over while a GPU works on the next slab."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from imaging.bits import WORD_BITS, Bits
from models.gpu_kernels import gpu_kernels
from models.infer_windows import Box

Sink = Callable[[Box, Bits], None]
"""Takes the class bits (W, x, y, z) of one finished slab, and where they lie in the scan."""


def threshold(logits: Tensor, channels: Sequence[int], words: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bits (W, x, y, z) int32 where `logits` (C, x, y, z) are above 0, and sums and counts, (C,) float64.

    The sums are those of the probabilities inside each mask, the counts its voxels. channels: the bit of each row of
    the logits. All on the device of the logits, so that only words leave it.
    """
    kernels = gpu_kernels("slab_triton") if logits.is_cuda else None
    if kernels is not None:
        found: tuple[Tensor, Tensor, Tensor] = kernels.threshold(logits, channels, words)
        return found
    made = torch.zeros((words, *logits.shape[1:]), dtype=torch.int32, device=logits.device)
    sums, counts = torch.zeros(2, len(logits), dtype=torch.float64, device=logits.device)
    for number, (own, channel) in enumerate(zip(logits, channels, strict=True)):
        mask = own > 0
        inside = own[mask].sigmoid()
        if len(inside):
            sums[number], counts[number] = inside.sum(dtype=torch.float64), len(inside)
            bit = np.uint32(1 << channel % WORD_BITS).view(np.int32)  # bit 31 is the sign
            made[channel // WORD_BITS].bitwise_or_(mask.to(torch.int32).mul_(int(bit)))
    return made, sums, counts


class Handover:
    """Gives the class bits of slabs to a sink, in order: at once on a CPU, from a GPU when they have been copied.

    Waiting for a copy is waiting for all that the GPU was told to do before it, so `flush` belongs behind the launches
    of the next slab, and after the last one.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: tuple[Box, Tensor, torch.cuda.Event] | None = None

    def put(self, box: Box, made: Tensor) -> None:
        """Take the words (W, x, y, z) int32 of the slab at `box`; the one before has been flushed."""
        if not made.is_cuda:
            self._sink(box, made.numpy().view(np.uint32))
            return
        host = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
        host.copy_(made, non_blocking=True)
        self._waiting = (box, host, torch.cuda.current_stream(made.device).record_event())

    def flush(self) -> None:
        """Give the slab that waits to the sink, if there is one."""
        if self._waiting is not None:
            box, host, copied = self._waiting
            self._waiting = None
            copied.synchronize()
            self._sink(box, host.numpy().view(np.uint32))
