"""A Swin block but for its attention as two GPU kernels: what comes before it, and all that follows.

Each token is read and written once. As operations of their own, products of 48 channels take three times as long as
their reads and writes, and norms, GELU and sums a pass over memory each.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from models.token_triton import normalised, placed

MOST_CHANNELS = 128
"""Wider tokens, of which there are few, do not fit into registers."""
ROWS = 64
"""Tokens of a program."""
WARPS = 4
STAGES = 1
"""Weights are not read ahead: that would take the memory of other programs, which hide the waiting better."""


@triton.jit
def _matrix(weight, at_in, at_out, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr):
    """Numbers `at_out` by `at_in` of a weight (OUTPUTS, INPUTS), turned round, 0 beyond it."""
    inside = (at_in < INPUTS)[:, None] & (at_out < OUTPUTS)[None, :]
    return tl.load(weight + at_out[None, :] * INPUTS + at_in[:, None], mask=inside, other=0.0)


@triton.jit
def _vector(bias, at, LENGTH: tl.constexpr, GIVEN: tl.constexpr):
    """Numbers `at` of a bias, in a row, 0 beyond it or where none is given."""
    found = tl.zeros_like(at).to(tl.float32)
    if GIVEN:
        found = tl.load(bias + at, mask=at < LENGTH, other=0.0).to(tl.float32)
    return found[None, :]


@triton.jit
def _before(
    x, index, norm_weight, norm_bias, weight, bias, into, rows_in, rows_out, eps,
    BIAS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """into (B, rows_out, 3 C): linear layer of the norm of row `index` of x (B, rows_in, C), of 0 where negative."""
    sample, row, channel, wide = placed(CHANNELS, WIDTH, ROWS)
    inside = row < rows_out
    source = tl.load(index + row, mask=inside, other=-1)
    there = (source >= 0)[:, None] & wide[None, :]
    x += sample * rows_in * CHANNELS
    own = tl.load(x + source[:, None] * CHANNELS + channel[None, :], mask=there, other=0.0).to(tl.float32)
    y = normalised(own, norm_weight, norm_bias, eps, wide, channel, True, CHANNELS)
    y = tl.where(there, y, 0.0).to(into.dtype.element_ty)
    into += sample * rows_out * 3 * CHANNELS
    for part in tl.static_range(3):
        column = part * CHANNELS + channel
        found = tl.dot(y, _matrix(weight + part * CHANNELS * CHANNELS, channel, channel, CHANNELS, CHANNELS))
        found += _vector(bias + part * CHANNELS, channel, CHANNELS, BIAS)
        at = row[:, None] * (3 * CHANNELS) + column[None, :]
        tl.store(into + at, found.to(into.dtype.element_ty), mask=inside[:, None] & wide[None, :])


@triton.jit
def _after(
    x, attended, index, weight, bias, norm_weight, norm_bias, weight1, bias1, weight2, bias2, into,
    rows, rows_attended, eps,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """into (B, rows, C) = t + mlp(norm(t)), t = x + linear layer of row `index` of attended (B, rows_attended, C)."""
    sample, row, channel, wide = placed(CHANNELS, WIDTH, ROWS)
    inside = (row < rows)[:, None] & wide[None, :]
    source = tl.load(index + row, mask=row < rows, other=0)
    attended += sample * rows_attended * CHANNELS
    own = tl.load(attended + source[:, None] * CHANNELS + channel[None, :], mask=inside, other=0.0)
    total = tl.dot(own, _matrix(weight, channel, channel, CHANNELS, CHANNELS))
    total += _vector(bias, channel, CHANNELS, True)
    at = sample * rows * CHANNELS + row[:, None] * CHANNELS + channel[None, :]
    total += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    y = normalised(total, norm_weight, norm_bias, eps, wide, channel, True, CHANNELS).to(x.dtype.element_ty)
    total += _vector(bias2, channel, CHANNELS, True)
    for first in range(0, HIDDEN, CHUNK):
        hidden = first + tl.arange(0, CHUNK)
        z = tl.dot(y, _matrix(weight1, channel, hidden, CHANNELS, HIDDEN)) + _vector(bias1, hidden, HIDDEN, True)
        z = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))  # GELU; the factor is 1 / sqrt(2)
        total = tl.dot(z.to(x.dtype.element_ty), _matrix(weight2, hidden, channel, HIDDEN, CHANNELS), total)
    tl.store(into + at, total.to(into.dtype.element_ty), mask=inside)


def before(x: Tensor, index: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """Return `linear`, to 3 C, of `norm` (B, M, 3 C) of rows `index` (M,) int32 of tokens `x` (B, N, C).

    Where the index is negative, it is that of 0.
    """
    x = x.contiguous()
    samples, rows, channels = x.shape
    into = x.new_empty(samples, len(index), 3 * channels)
    bias = linear.weight if linear.bias is None else linear.bias
    _before[(triton.cdiv(len(index), ROWS), samples)](
        x, index, norm.weight, norm.bias, linear.weight, bias, into, rows, len(index), norm.eps,
        BIAS=linear.bias is not None, CHANNELS=channels, WIDTH=triton.next_power_of_2(channels), ROWS=ROWS,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return into


def after(
    x: Tensor,
    attended: Tensor,
    index: Tensor,
    linear: nn.Linear,
    norm: nn.LayerNorm,
    first: nn.Linear,
    second: nn.Linear,
) -> Tensor:
    """Return t + second(gelu(first(norm(t)))) (B, N, C), where t = `x` + linear(rows `index` of `attended`).

    x: (B, N, C). attended: (B, M, C). index: (N,) int32. All layers have a bias.
    """
    x, attended = x.contiguous(), attended.contiguous()
    samples, rows, channels = x.shape
    into = torch.empty_like(x)
    _after[(triton.cdiv(rows, ROWS), samples)](
        x, attended, index, linear.weight, linear.bias, norm.weight, norm.bias, first.weight, first.bias,
        second.weight, second.bias, into, rows, attended.shape[1], norm.eps,
        CHANNELS=channels, HIDDEN=first.out_features, WIDTH=triton.next_power_of_2(channels), CHUNK=64, ROWS=ROWS,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return into


def try_out() -> None:
    """Build and run the kernels; raises whatever stops them."""
    channels = MOST_CHANNELS  # the most that the card is asked for
    given: dict[str, Any] = {"device": "cuda", "dtype": torch.float16}
    norm, linear, thrice = (
        nn.LayerNorm(channels, **given),
        nn.Linear(channels, channels, **given),
        nn.Linear(channels, 3 * channels, **given),
    )
    first, second = nn.Linear(channels, 4 * channels, **given), nn.Linear(4 * channels, channels, **given)
    x, index = torch.zeros(1, 2, channels, **given), torch.zeros(2, dtype=torch.int32, device="cuda")
    before(x, index, norm, thrice)
    after(x, x, index, linear, norm, first, second)
