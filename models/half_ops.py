"""Steps of a backbone in half precision, for prediction: sums in float32, maps in 16 bits with their channels last.

A GPU convolves such maps in a third of the time. Autocast would cast the weights in every pass, widen each map that is
normalised, and turn it round for PyTorch's instance norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.gpu_kernels import gpu_kernels

HALVES = (torch.bfloat16, torch.float16)
ALIGNED = 8
"""Numbers that a row of a matrix has a multiple of, or GPUs fall back to slow kernels."""
READ = 32
"""Channels that a convolution reads are a multiple of it, see `width`."""


def in_half(x: Tensor) -> bool:
    """Whether `x` is to take these steps: it is in half precision itself, and nobody will ask for gradients."""
    return x.dtype in HALVES and not torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)


def in_two(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `x` (B, 1, X, Y, Z) float32 as two channels of half precision `dtype` that sum to it, to twice the digits.

    In bfloat16 alone a scan is rounded by up to 0.8 of the 425 HU that 0..1 stands for, which changes masks more than
    all that is rounded behind it.
    """
    coarse = x.to(dtype)
    return torch.cat([coarse, (x - coarse).to(dtype)], dim=1)


def width(channels: int, by: int = 64) -> int:
    """Return how many channels a map has in memory for `channels` that a convolution gives; those behind them are 0.

    A GPU's convolutions in half precision take channels by eights, and fall back to slow kernels for others. Above 32
    they are quickest by 32, of what they read, and by 64, of what they give: 48 into 48 takes an H200 2.4 times as
    long as 64 into 64.
    """
    by = ALIGNED if channels <= 32 else by
    return -(-channels // by) * by


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """Return the convolution of `x` (B, C, X, Y, Z) with stride 1, channels last; one channel may come `in_two`.

    `x` may be wider than the channels of `weight`, see `width`; so is what kernels of more than one voxel return.
    """
    if weight[0, 0].numel() == 1:
        return _mix(x, weight, bias)
    if weight.shape[1] == 1:
        return _of_one_channel(x, weight, bias, padding)
    outputs, inputs = width(len(weight)), max(x.shape[1], width(weight.shape[1], READ))
    grown = (0,) * 6
    weight = _padded(weight, (*grown, 0, inputs - weight.shape[1], 0, outputs - len(weight)))
    bias = None if bias is None else _padded(bias, (0, outputs - len(bias)))
    x = _padded(x, (*grown, 0, inputs - x.shape[1]))
    return _last(functional.conv3d(_last(x), _last(weight), bias, padding=padding))


def _padded(x: Tensor, by: tuple[int, ...]) -> Tensor:
    """Return `x` padded with 0, itself where there is nothing to add: PyTorch would copy it."""
    return functional.pad(x, by) if any(by) else x


def _mix(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of `x` (B, C or more, X, Y, Z) with `weight` (O, C, 1, 1, 1): (B, O, X, Y, Z)."""
    matrix = weight.flatten(1)  # (O, C)
    if weight.shape[1] == 1:
        matrix = matrix.repeat(1, x.shape[1])  # parts, of which the channel is the sum
    matrix = _padded(matrix, (0, x.shape[1] - matrix.shape[1]))
    return functional.linear(_last(x).permute(0, 2, 3, 4, 1), matrix, bias).permute(0, 4, 1, 2, 3)


def _of_one_channel(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Return the convolution of the sum of `x` (B, P, X, Y, Z) over P as one matrix product: padded to eight channels a
    convolution takes four times as long, and with one, far longer."""
    taps = weight.shape[2:]
    outputs = width(len(weight))
    kernels = gpu_kernels("map_triton") if x.is_cuda and padding == 1 and taps == (3, 3, 3) else None
    if kernels is not None:
        found: Tensor = kernels.convolve_first(x, weight, bias, outputs)
        return found
    seen = functional.pad(x, [padding] * 6)
    for axis, size in enumerate(taps, start=2):
        seen = seen.unfold(axis, size, 1)
    seen = seen.permute(0, 2, 3, 4, 1, 5, 6, 7)  # (B, X, Y, Z, P, k, k, k), no copy
    count = x.shape[1] * taps.numel()
    columns = x.new_zeros(*seen.shape[:4], -(-count // ALIGNED) * ALIGNED)
    columns[..., :count].view(seen.shape).copy_(seen)
    more = outputs - len(weight)
    matrix = weight.flatten(1).repeat(1, x.shape[1])
    matrix = functional.pad(matrix, [0, columns.shape[-1] - count, 0, more])  # (O or more, 32 or 56)
    bias = None if bias is None else functional.pad(bias, [0, more])
    return functional.linear(columns, matrix, bias).permute(0, 4, 1, 2, 3)


def join(low: Tensor, up: nn.ConvTranspose3d, skip: Tensor) -> Tensor:
    """Return `cat([up(low), skip])` (B, M + S or more, X, Y, Z), channels last, written once; see `width`.

    low: (B, C, X/2, Y/2, Z/2). up: kernel 2, stride 2, to M channels: a matrix product of which each voxel becomes
    eight. skip: (B, S, X, Y, Z).
    """
    samples, grown = len(low), up.out_channels
    x, y, z = low.shape[2:]
    weight = up.weight.permute(2, 3, 4, 1, 0).reshape(8 * grown, -1)  # (8 * M, C)
    bias = None if up.bias is None else up.bias.repeat(8)
    fine = functional.linear(_last(low).permute(0, 2, 3, 4, 1), weight, bias)  # (B, x, y, z, 8 * M)
    channels = width(grown + skip.shape[1], READ)
    kernels = gpu_kernels("map_triton") if low.is_cuda else None
    if kernels is not None:
        found: Tensor = kernels.join_maps(fine, _last(skip), channels)
        return found
    joined = low.new_zeros(samples, 2 * x, 2 * y, 2 * z, channels)
    corners = joined[..., :grown].view(samples, x, 2, y, 2, z, 2, grown)
    corners.copy_(fine.view(samples, x, y, z, 2, 2, 2, grown).permute(0, 1, 4, 2, 5, 3, 6, 7))
    joined[..., grown : grown + skip.shape[1]] = skip.permute(0, 2, 3, 4, 1)
    return joined.permute(0, 4, 1, 2, 3)


def normalise_(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float | None = None,
    beside: Tensor | None = None,
    beside_too: bool = False,
    channels: int | None = None,
    times: Tensor | None = None,
) -> Tensor:
    """Normalise each sample and channel of `x` (B, C, X, Y, Z) over its voxels, and return it channels last.

    See `volume_ops.normalise_` for the arguments. channels: of `x`, None for all; it may be wider (see `width`). In
    place, but for a wider `x` with something beside it: then the result is a new map of `channels`.
    times: (C,), for a `beside` of one channel, which may come `in_two`: stands for that channel times each of these,
    which are normalised too.
    """
    x = _last(x)
    rows = _rows(x)
    count = channels or x.shape[1]
    scaling = _scaling(rows, count, count, weight, bias, eps)
    slope = 1.0 if slope is None else slope
    if beside is None:
        _apply(rows, rows, scaling, slope)
        return x
    if times is None:
        other = _rows(_last(beside))
        own = _scaling(other, count, count, weight, bias, eps) if beside_too else None
    else:
        other, own = _multiples(beside, times, eps)
    into = rows if count == x.shape[1] else rows.new_empty(*rows.shape[:2], count)
    _apply(rows, into, scaling, slope, other, own)
    return into.view(len(x), *x.shape[2:], count).permute(0, 4, 1, 2, 3)


def _multiples(x: Tensor, times: Tensor, eps: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return rows (B, V, 1) float32 of the one channel of `x` (B, P, X, Y, Z), and what normalises it times each of
    `times` (C,), whose mean and variance are known from its own."""
    rows = x.float().sum(1).flatten(1).unsqueeze(2)
    kernels = gpu_kernels("norm_triton") if x.is_cuda else None
    mean, variance = (_moments if kernels is None else kernels.moments)(rows, 1)  # (B, 1) float64
    scale = times * (variance * times.double().square() + eps).rsqrt()  # (B, C)
    return rows, (scale.float(), (-mean * scale).float())


def project(x: Tensor, norm: nn.GroupNorm, last: nn.Conv3d) -> Tensor:
    """Return `last(relu(norm(x)))` (B, O, X * Y * Z) of `x` (B, C, X, Y, Z), `last` with 1x1x1 kernels."""
    rows = _rows(_last(x))
    hidden = torch.empty_like(rows)
    _apply(rows, hidden, _scaling(rows, x.shape[1], norm.num_groups, norm.weight, norm.bias, norm.eps), 0.0)
    bias = None if last.bias is None else last.bias.to(x.dtype)
    return functional.linear(hidden, last.weight.flatten(1).to(x.dtype), bias).transpose(1, 2)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _rows(x: Tensor) -> Tensor:
    """Return `x` (B, C, X, Y, Z), channels last, as (B, voxels, C), no copy."""
    return x.permute(0, 2, 3, 4, 1).view(len(x), -1, x.shape[1])


def _scaling(
    rows: Tensor, channels: int, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Return a and b (B, C) float32 such that a * rows + b is `rows` (B, V, C or more) normalised in groups."""
    kernels = gpu_kernels("norm_triton") if rows.is_cuda else None
    if kernels is not None and groups == channels:
        found: tuple[Tensor, Tensor] = kernels.scaling(rows, channels, weight, bias, eps)
        return found
    mean, variance = (_moments if kernels is None else kernels.moments)(rows, channels)  # (B, C) float64
    if groups < channels:
        own = mean.view(len(mean), groups, -1)
        centre = own.mean(2, keepdim=True)  # (B, G, 1)
        around = variance.view_as(own).mean(2, keepdim=True) + (own - centre).square().mean(2, keepdim=True)
        mean, variance = (each.expand_as(own).reshape_as(mean) for each in (centre, around))
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale.float(), shift.float()


def _moments(rows: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance (B, C) over the voxels of `rows` (B, V, C or more)."""
    variance, mean = torch.var_mean(rows[..., :channels].double(), dim=1, unbiased=False)
    return mean, variance


def _apply(
    rows: Tensor,
    into: Tensor,
    scaling: tuple[Tensor, Tensor],
    slope: float,
    other: Tensor | None = None,
    other_scaling: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Write leaky ReLU of a * `rows` + b + `other` to `into`; see `norm_triton.apply`, which does so in one pass."""
    kernels = gpu_kernels("norm_triton") if rows.is_cuda else None
    if kernels is not None:
        kernels.apply(rows, into, scaling, slope, other, other_scaling)
        return
    channels = scaling[0].shape[1]
    found = rows[..., :channels].float() * scaling[0][:, None] + scaling[1][:, None]
    if other is not None:
        wide = other[..., :channels].float()
        found += wide if other_scaling is None else wide * other_scaling[0][:, None] + other_scaling[1][:, None]
    into[..., :channels] = functional.leaky_relu(found, slope)
