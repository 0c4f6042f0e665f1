"""Normalising maps in as few passes over a GPU's memory as there can be: one to read, one to read and write.

PyTorch's instance norm wants the channels first, which convolutions in half precision do not, and takes the activation
and the sum of a residual block as passes of their own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096
"""Numbers that a program holds at once."""
STEPS = 16
"""Tiles of a program when sums are taken."""


@triton.jit
def _sums(x, into, voxels, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr):
    """x (B, V, C). into (B, programs, 2, C): sums of x and of its square, both less the sample's first voxel."""
    sample = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    wide = channel < CHANNELS
    x += sample * voxels * CHANNELS
    first = tl.load(x + channel, mask=wide, other=0.0).to(tl.float32)
    plain = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    squared = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for step in range(STEPS):
        row = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < voxels)[:, None] & wide[None, :]
        own = tl.load(x + row[:, None] * CHANNELS + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        own = tl.where(inside, own - first[None, :], 0.0)
        plain += own
        squared += own * own
    into += (sample * tl.num_programs(0) + tl.program_id(0)) * 2 * CHANNELS + channel
    tl.store(into, tl.sum(plain, axis=0), mask=wide)
    tl.store(into + CHANNELS, tl.sum(squared, axis=0), mask=wide)


@triton.jit
def _apply(
    x, into, scale, shift, other, other_scale, other_shift, voxels, slope,
    OTHER: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """into = leaky ReLU of scale * x + shift + other, `other` as it is (1), scaled and shifted too (2) or left out."""
    sample = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    wide = channel < CHANNELS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < voxels)[:, None] & wide[None, :]
    at = sample * voxels * CHANNELS + row[:, None] * CHANNELS + channel[None, :]
    of_sample = sample * CHANNELS + channel
    a = tl.load(scale + of_sample, mask=wide, other=0.0)[None, :]
    b = tl.load(shift + of_sample, mask=wide, other=0.0)[None, :]
    y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * a + b
    if OTHER >= 1:
        beside = tl.load(other + at, mask=inside, other=0.0).to(tl.float32)
        if OTHER == 2:
            a = tl.load(other_scale + of_sample, mask=wide, other=0.0)[None, :]
            b = tl.load(other_shift + of_sample, mask=wide, other=0.0)[None, :]
            beside = beside * a + b
        y += beside
    y = tl.where(y > 0, y, y * slope)
    tl.store(into + at, y.to(into.dtype.element_ty), mask=inside)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance (B, C) float64 over the voxels of `rows` (B, V, C), contiguous, on a GPU."""
    samples, voxels, channels = rows.shape
    width = triton.next_power_of_2(channels)
    tall = max(1, TILE // width)
    programs = triton.cdiv(voxels, tall * STEPS)
    sums = torch.empty(samples, programs, 2, channels, device=rows.device)
    _sums[(programs, samples)](rows, sums, voxels, CHANNELS=channels, WIDTH=width, ROWS=tall, STEPS=STEPS)
    plain, squared = (sums.sum(1, dtype=torch.float64) / voxels).unbind(1)  # (B, C)
    return rows[:, 0] + plain, squared - plain.square()


def apply(
    rows: Tensor,
    into: Tensor,
    scaling: tuple[Tensor, Tensor],
    slope: float,
    other: Tensor | None = None,
    other_scaling: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Write to `into` the leaky ReLU, of slope `slope`, of scale * `rows` + shift + `other`; all (B, V, C) contiguous.

    scaling, other_scaling: scale and shift, (B, C) float32 each. `other` is added as it is without its own.
    """
    samples, voxels, channels = rows.shape
    width = triton.next_power_of_2(channels)
    tall = max(1, TILE // width)
    beside, own = other if other is not None else rows, other_scaling or scaling
    _apply[(triton.cdiv(voxels, tall), samples)](
        rows, into, *scaling, beside, *own, voxels, slope,
        OTHER=0 if other is None else 1 if other_scaling is None else 2, CHANNELS=channels, WIDTH=width, ROWS=tall,
    )  # fmt: skip


def try_out() -> None:
    """Build and run the kernels; raises whatever stops them."""
    rows, scaling = torch.zeros(1, 2, 8, device="cuda"), torch.zeros(1, 8, device="cuda")
    moments(rows)
    apply(rows, rows, (scaling, scaling), 1.0)
