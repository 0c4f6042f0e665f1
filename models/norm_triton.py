"""Normalising maps in as few passes over a GPU's memory as there can be: one to read, one to read and write.

PyTorch's instance norm wants the channels first, which convolutions in half precision do not, and takes the activation
and the sum of a residual block as passes of their own. Maps may be wider than their channels (`half_ops.width`): what
lies behind the channels is neither read nor written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048
"""Numbers that a program normalises."""
SUMMED = 4096
"""Numbers that a program sums up at once, and """
STEPS = 16
"""how often."""
PARTS = 64
"""Programs whose sums are added at once."""


@triton.jit
def _sums(
    x, into, voxels,
    CHANNELS: tl.constexpr, ROW: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """x (B, V, ROW). into (B, programs, 2, C): sums of x and of its square, both less the sample's first voxel."""
    sample = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    wide = channel < CHANNELS
    x += sample * voxels * ROW
    first = tl.load(x + channel, mask=wide, other=0.0)
    centre = first.to(tl.float32)
    plain = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    squared = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for step in range(STEPS):
        row = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < voxels)[:, None] & wide[None, :]
        own = tl.load(x + row[:, None] * ROW + channel[None, :], mask=inside, other=first[None, :])
        own = own.to(tl.float32) - centre[None, :]
        plain += own
        squared += own * own
    into += (sample * tl.num_programs(0) + tl.program_id(0)) * 2 * CHANNELS + channel
    tl.store(into, tl.sum(plain, axis=0), mask=wide)
    tl.store(into + CHANNELS, tl.sum(squared, axis=0), mask=wide)


@triton.jit
def _finish(
    sums, x, weight, bias, one, two, voxels, parts, eps,
    NORM: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr,
    CHANNELS: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """sums (B, parts, 2, C) of x (B, V, ROW). one, two (B, C): mean and variance, or with NORM scale and shift."""
    sample = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wide = channel < CHANNELS
    plain = tl.zeros((PARTS, BLOCK), dtype=tl.float64)
    squared = tl.zeros((PARTS, BLOCK), dtype=tl.float64)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < parts)[:, None] & wide[None, :]
        at = (sample * parts + part[:, None]) * 2 * CHANNELS + channel[None, :]
        plain += tl.load(sums + at, mask=inside, other=0.0).to(tl.float64)
        squared += tl.load(sums + at + CHANNELS, mask=inside, other=0.0).to(tl.float64)
    first = tl.load(x + sample * voxels * ROW + channel, mask=wide, other=0.0).to(tl.float64)
    off = tl.sum(plain, axis=0) / voxels
    mean = first + off
    variance = tl.sum(squared, axis=0) / voxels - off * off
    if NORM:
        scale = 1.0 / tl.sqrt(variance + eps)
        if WEIGHT:
            scale *= tl.load(weight + channel, mask=wide, other=0.0).to(tl.float64)
        shift = -mean * scale
        if BIAS:
            shift += tl.load(bias + channel, mask=wide, other=0.0).to(tl.float64)
        mean, variance = scale, shift
    tl.store(one + sample * CHANNELS + channel, mean.to(one.dtype.element_ty), mask=wide)
    tl.store(two + sample * CHANNELS + channel, variance.to(two.dtype.element_ty), mask=wide)


@triton.jit
def _apply(
    x, into, scale, shift, other, other_scale, other_shift, voxels, slope,
    OTHER: tl.constexpr, CHANNELS: tl.constexpr, ROW: tl.constexpr, INTO: tl.constexpr, BESIDE: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """into = leaky ReLU of scale * x + shift + other, `other` as it is (1), scaled and shifted too (2) or left out.

    ROW, INTO, BESIDE: numbers of a row of x, into and other, of which one stands for all channels.
    """
    sample = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    wide = channel < CHANNELS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < voxels)[:, None] & wide[None, :]
    x += sample * voxels * ROW
    into += sample * voxels * INTO
    of_sample = sample * CHANNELS + channel
    a = tl.load(scale + of_sample, mask=wide, other=0.0)[None, :]
    b = tl.load(shift + of_sample, mask=wide, other=0.0)[None, :]
    y = tl.load(x + row[:, None] * ROW + channel[None, :], mask=inside, other=0.0).to(tl.float32) * a + b
    if OTHER >= 1:
        other += sample * voxels * BESIDE
        at = row[:, None] * BESIDE
        if BESIDE > 1:
            at += channel[None, :]
        beside = tl.load(other + at, mask=inside, other=0.0).to(tl.float32)
        if OTHER == 2:
            a = tl.load(other_scale + of_sample, mask=wide, other=0.0)[None, :]
            b = tl.load(other_shift + of_sample, mask=wide, other=0.0)[None, :]
            beside = beside * a + b
        y += beside
    y = tl.where(y > 0, y, y * slope)
    tl.store(into + row[:, None] * INTO + channel[None, :], y.to(into.dtype.element_ty), mask=inside)


def _summed(rows: Tensor, channels: int) -> Tensor:
    """Return (B, programs, 2, C): sums over some voxels of `rows` (B, V, C or more), see `_sums`."""
    samples, voxels, row = rows.shape
    width = triton.next_power_of_2(channels)
    tall = max(1, SUMMED // width)
    programs = triton.cdiv(voxels, tall * STEPS)
    sums = torch.empty(samples, programs, 2, channels, device=rows.device)
    _sums[(programs, samples)](rows, sums, voxels, CHANNELS=channels, ROW=row, WIDTH=width, ROWS=tall, STEPS=STEPS)
    return sums


def _finished(
    rows: Tensor, channels: int, dtype: torch.dtype, eps: float | None, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    sums = _summed(rows, channels)
    one, two = torch.empty(2, len(rows), channels, device=rows.device, dtype=dtype).unbind(0)
    block = min(16, triton.next_power_of_2(channels))
    _finish[(triton.cdiv(channels, block), len(rows))](
        sums, rows, rows if weight is None else weight, rows if bias is None else bias, one, two,
        rows.shape[1], sums.shape[1], eps or 0.0,
        NORM=eps is not None, WEIGHT=weight is not None, BIAS=bias is not None,
        CHANNELS=channels, ROW=rows.shape[2], BLOCK=block, PARTS=PARTS,
    )  # fmt: skip
    return one, two


def moments(rows: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance (B, C) float64 over the voxels of `rows` (B, V, C or more), contiguous, on a GPU."""
    return _finished(rows, channels, torch.float64, None, None, None)


def scaling(
    rows: Tensor, channels: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Return scale and shift (B, C) float32 that normalise each channel of `rows` (B, V, C or more) by itself."""
    return _finished(rows, channels, torch.float32, eps, weight, bias)


def apply(
    rows: Tensor,
    into: Tensor,
    scaling: tuple[Tensor, Tensor],
    slope: float,
    other: Tensor | None = None,
    other_scaling: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Write to `into` the leaky ReLU, of slope `slope`, of scale * `rows` + shift + `other`; all (B, V, C or more).

    scaling, other_scaling: scale and shift, (B, C) float32 each. `other` is added as it is without its own; it may be
    (B, V, 1), one number for all channels.
    """
    samples, voxels, row = rows.shape
    channels = scaling[0].shape[1]
    width = triton.next_power_of_2(channels)
    tall = max(1, TILE // width)
    beside, own = other if other is not None else rows, other_scaling or scaling
    _apply[(triton.cdiv(voxels, tall), samples)](
        rows, into, *scaling, beside, *own, voxels, slope,
        OTHER=0 if other is None else 1 if other_scaling is None else 2,
        CHANNELS=channels, ROW=row, INTO=into.shape[2], BESIDE=beside.shape[2], WIDTH=width, ROWS=tall,
    )  # fmt: skip


def try_out() -> None:
    """Build and run the kernels; raises whatever stops them."""
    rows = torch.zeros(1, 2, 8, device="cuda")
    moments(rows, 8)
    apply(rows, rows, scaling(rows, 8, None, None, 1e-5), 1.0)
