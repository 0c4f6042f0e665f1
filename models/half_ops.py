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
"""A GPU's convolutions in half precision take channels by eights; for others they fall back to slow kernels."""


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


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """Return the convolution of `x` (B, C, X, Y, Z) with stride 1, channels last; one channel may come `in_two`."""
    if weight.shape[1] == 1:
        return _of_one_channel(x, weight, bias, padding)
    missing = -x.shape[1] % ALIGNED
    if missing:
        x, weight = (functional.pad(each, [0] * 6 + [0, missing]) for each in (x, weight))
    found = functional.conv3d(_last(x), _last(weight), bias, padding=padding)
    return _last(found)


def _of_one_channel(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Return the convolution of the sum of `x` (B, P, X, Y, Z) over P as one matrix product: padded to eight channels a
    convolution takes four times as long, and with one, far longer."""
    taps = weight.shape[2:]
    seen = functional.pad(x, [padding] * 6)
    for axis, size in enumerate(taps, start=2):
        seen = seen.unfold(axis, size, 1)
    seen = seen.permute(0, 2, 3, 4, 1, 5, 6, 7)  # (B, X, Y, Z, P, k, k, k), no copy
    count = x.shape[1] * taps.numel()
    columns = x.new_zeros(*seen.shape[:4], -(-count // ALIGNED) * ALIGNED)
    columns[..., :count].view(seen.shape).copy_(seen)
    kernels = functional.pad(weight.flatten(1).repeat(1, x.shape[1]), [0, columns.shape[-1] - count])  # (O, 32 or 56)
    return functional.linear(columns, kernels, bias).permute(0, 4, 1, 2, 3)


def join(low: Tensor, up: nn.ConvTranspose3d, skip: Tensor) -> Tensor:
    """Return `cat([up(low), skip])` (B, M + S, X, Y, Z), channels last, written once.

    low: (B, C, X/2, Y/2, Z/2). up: kernel 2, stride 2, to M channels: a matrix product of which each voxel becomes
    eight. skip: (B, S, X, Y, Z).
    """
    samples, grown = len(low), up.out_channels
    x, y, z = low.shape[2:]
    weight = up.weight.permute(2, 3, 4, 1, 0).reshape(8 * grown, -1)  # (8 * M, C)
    bias = None if up.bias is None else up.bias.repeat(8)
    fine = functional.linear(_last(low).permute(0, 2, 3, 4, 1), weight, bias).view(samples, x, y, z, 2, 2, 2, grown)
    joined = low.new_empty(samples, 2 * x, 2 * y, 2 * z, grown + skip.shape[1])
    corners = joined[..., :grown].view(samples, x, 2, y, 2, z, 2, grown)
    corners.copy_(fine.permute(0, 1, 4, 2, 5, 3, 6, 7))
    joined[..., grown:] = skip.permute(0, 2, 3, 4, 1)
    return joined.permute(0, 4, 1, 2, 3)


def normalise_(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float | None = None,
    beside: Tensor | None = None,
    beside_too: bool = False,
) -> Tensor:
    """Normalise each sample and channel of `x` (B, C, X, Y, Z) over its voxels, in place, and return it channels last.

    See `volume_ops.normalise_` for the arguments.
    """
    x = _last(x)
    rows = _rows(x)
    scaling = _scaling(rows, x.shape[1], weight, bias, eps)
    other = None if beside is None else _rows(_last(beside))
    other_scaling = _scaling(other, x.shape[1], weight, bias, eps) if other is not None and beside_too else None
    _apply(rows, rows, scaling, 1.0 if slope is None else slope, other, other_scaling)
    return x


def project(x: Tensor, norm: nn.GroupNorm, last: nn.Conv3d) -> Tensor:
    """Return `last(relu(norm(x)))` (B, O, X * Y * Z) of `x` (B, C, X, Y, Z), `last` with 1x1x1 kernels."""
    rows = _rows(_last(x))
    hidden = torch.empty_like(rows)
    _apply(rows, hidden, _scaling(rows, norm.num_groups, norm.weight, norm.bias, norm.eps), 0.0)
    bias = None if last.bias is None else last.bias.to(x.dtype)
    return functional.linear(hidden, last.weight.flatten(1).to(x.dtype), bias).transpose(1, 2)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _rows(x: Tensor) -> Tensor:
    """Return `x` (B, C, X, Y, Z), channels last, as (B, voxels, C), no copy."""
    return x.permute(0, 2, 3, 4, 1).view(len(x), -1, x.shape[1])


def _scaling(
    rows: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Return a and b (B, C) float32 such that a * rows + b is `rows` (B, V, C) normalised in groups of channels."""
    kernels = gpu_kernels("norm_triton") if rows.is_cuda else None
    mean, variance = (_moments if kernels is None else kernels.moments)(rows)  # (B, C) float64
    channels = mean.shape[1]
    if groups < channels:
        own = mean.view(len(mean), groups, -1)
        centre = own.mean(2, keepdim=True)  # (B, G, 1)
        around = variance.view_as(own).mean(2, keepdim=True) + (own - centre).square().mean(2, keepdim=True)
        mean, variance = (each.expand_as(own).reshape_as(mean) for each in (centre, around))
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale.float(), shift.float()


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance (B, C) over the voxels of `rows` (B, V, C)."""
    variance, mean = torch.var_mean(rows.double(), dim=1, unbiased=False)
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
    found = rows.float() * scaling[0][:, None] + scaling[1][:, None]
    if other is not None:
        wide = other.float()
        found += wide if other_scaling is None else wide * other_scaling[0][:, None] + other_scaling[1][:, None]
    into.copy_(functional.leaky_relu(found, slope))
