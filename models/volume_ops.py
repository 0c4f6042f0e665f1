"""Steps of a backbone in less time and memory than PyTorch's own, for prediction; the numbers are the same.

Maps lie channels last: then oneDNN convolves them without reordering, and a voxel's channels are one row of a matrix.
What is in half precision, as on a GPU, goes to `models.half_ops`.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import half_ops

ROWS = 1 << 19
"""Numbers a pass when normalising: 2 MB in float32, which stays in cache."""


def frugal(x: Tensor) -> bool:
    """Whether `x` is to take these steps: in float32 on a CPU, or in half precision, and nobody wants gradients."""
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return half_ops.in_half(x) or (x.device.type == "cpu" and exact and not torch.is_grad_enabled())


def channels_last(x: Tensor) -> Tensor:
    """Return `x` (B, C, X, Y, Z) with its channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """Return the convolution of `x` (B, C, X, Y, Z) with stride 1, channels last.

    It asks for oneDNN by name: PyTorch 2.13 does not where batch x channels x rows x columns <= 20,480.
    """
    if half_ops.in_half(x):
        return half_ops.convolve(x, weight, bias, padding)
    x = channels_last(x)
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return channels_last(functional.conv3d(x, weight, bias, padding=padding))
    ones = [1, 1, 1]
    found: Tensor = torch.ops.aten.mkldnn_convolution(x, channels_last(weight), bias, [padding] * 3, ones, ones, 1)
    return channels_last(found)


def normalise_(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    slope: float | None = None,
    beside: Tensor | None = None,
    beside_too: bool = False,
    channels: int | None = None,
) -> Tensor:
    """Normalise each sample and channel of `x` (B, C, X, Y, Z) over its voxels, in place, and return it channels last.

    weight, bias: (C,), the affine part. slope: of a leaky ReLU that follows (0: ReLU); None: nothing follows.
    beside: like `x`, added before the leaky ReLU. beside_too: normalised first, in the same way; it may be lost.
    channels: of `x`, which `convolve` may have made wider; they say so where they matter to what follows.
    """
    if half_ops.in_half(x):
        return half_ops.normalise_(x, weight, bias, eps, slope, beside, beside_too, channels)
    x = channels_last(x)
    if beside is not None:
        beside = normalise_(beside, weight, bias, eps) if beside_too else channels_last(beside)
    for number, sample in enumerate(x):
        rows = voxel_rows(sample[None])  # (voxels, C)
        a, b = _affine(rows, x.shape[1], weight, bias, eps)
        others = None if beside is None else passes(voxel_rows(beside[number : number + 1]))
        for place, part in enumerate(passes(rows)):
            part.mul_(a).add_(b)
            if others is not None:
                part += others[place]
            if slope == 0:
                part.relu_()
            elif slope is not None:
                functional.leaky_relu_(part, slope)
    return x


def convolve_joined(
    low: Tensor, up: nn.ConvTranspose3d, skip: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 1
) -> Tensor:
    """Return `conv(cat([up(low), skip]))` (B, O, X, Y, Z), neither doubled map nor joined map ever made.

    low: (B, C, X/2, Y/2, Z/2). up: kernel 2, stride 2. skip: (B, S, X, Y, Z). weight: (O, C + S, 3, 3, 3) with padding
    1, or (O, C + S, 1, 1, 1) with 0. Doubling and convolving are linear: a voxel of the result sees 2 x 2 x 2 voxels of
    `low` through weights that depend only on which of 8 corners of a doubled voxel it is, so 8 products where the plain
    form takes 27.
    """
    if half_ops.in_half(low):
        return half_ops.convolve(half_ops.join(low, up, skip), weight, bias, padding)
    grown, voxels = up.out_channels, skip[0, 0].numel()
    if 27 * voxels * grown < 8 * voxels * up.in_channels + 216 * grown * up.in_channels:
        # on a small map the weights of the corners would cost more than they save
        return convolve(torch.cat([up(low), skip], dim=1), weight, bias, padding)
    result = convolve(skip, weight[:, grown:].contiguous(), bias, padding)
    from_up = weight[:, :grown]
    if up.bias is not None:
        _add_constant(result, up.bias, from_up, padding)
    doubling = up.weight.permute(2, 3, 4, 1, 0).contiguous()  # (2, 2, 2, M, C)
    mixing = from_up.permute(2, 3, 4, 0, 1).contiguous()  # (k, k, k, O, M)
    padded = channels_last(functional.pad(low, [padding] * 6))  # outside, the doubled map is 0
    for corner in itertools.product((0, 1), repeat=3):
        kernel = _corner_kernel(doubling, mixing, corner)  # (O, C, 2, 2, 2) or (O, C, 1, 1, 1)
        at = tuple(
            slice(side, side + size + 1) if padding else slice(None)
            for side, size in zip(corner, low.shape[2:], strict=True)
        )
        x, y, z = (slice(side, None, 2) for side in corner)
        result[:, :, x, y, z] += convolve(padded[(slice(None), slice(None), *at)], kernel, None, 0)
    return result


def _corner_kernel(doubling: Tensor, mixing: Tensor, corner: tuple[int, ...]) -> Tensor:
    """Return what a voxel at `corner` of its doubled voxel sees of the low map: (O, C, k, k, k), k 2 or 1.

    doubling: (2, 2, 2, M, C). mixing: (3, 3, 3, O, M) or (1, 1, 1, O, M).
    """
    taps, half = mixing.shape[0], mixing.shape[0] // 2
    kernel = mixing.new_zeros(half + 1, half + 1, half + 1, mixing.shape[3], doubling.shape[4])
    for tap in itertools.product(range(taps), repeat=3):
        fine = [side + k - half for side, k in zip(corner, tap, strict=True)]  # -1 to 2, on the doubled grid
        x, y, z = (f // 2 + (half - side if half else 0) for f, side in zip(fine, corner, strict=True))
        kernel[x, y, z].addmm_(mixing[tap], doubling[tuple(f % 2 for f in fine)])
    return kernel.permute(3, 4, 0, 1, 2)


def _add_constant(into: Tensor, constant: Tensor, weight: Tensor, padding: int) -> None:
    """Add the convolution of a map that is `constant` (M,) everywhere; at the border it sees less of it."""
    if not padding:
        into += (weight.flatten(1) @ constant)[:, None, None, None]
        return
    small = functional.conv3d(constant[None, :, None, None, None].expand(1, -1, 3, 3, 3), weight, padding=1)
    places = (
        torch.tensor([0] + [1] * (size - 2) + [2], device=into.device) for size in into.shape[2:]
    )  # first, inner, last
    x, y, z = places
    for index, plane in zip(x.tolist(), into.unbind(2), strict=True):
        plane += small[:, :, index][:, :, y][:, :, :, z]


def project(x: Tensor, norm: nn.GroupNorm, last: nn.Conv3d) -> Tensor:
    """Return `last(relu(norm(x)))` (B, O, X * Y * Z) of `x` (B, C, X, Y, Z), `last` with 1x1x1 kernels."""
    if half_ops.in_half(x):
        return half_ops.project(x, norm, last)
    x = channels_last(x)
    weight = last.weight.flatten(1)  # (O, C)
    found = x.new_empty(x.shape[0], weight.shape[0], x[0, 0].numel())
    for sample, into in zip(x, found, strict=True):
        rows = voxel_rows(sample[None])  # (voxels, C)
        a, b = _affine(rows, norm.num_groups, norm.weight, norm.bias, norm.eps)
        done = 0
        for part in passes(rows):
            hidden = part.mul(a).add_(b).relu_()  # (n, C)
            into[:, done : done + len(part)] = functional.linear(hidden, weight, last.bias).T
            done += len(part)
    return found


def halve(x: Tensor) -> Tensor:
    """Return the largest of each 2 x 2 x 2 voxels of `x` (B, C, X, Y, Z), all even: (B, C, X/2, Y/2, Z/2)."""
    for axis in (2, 3, 4):
        sides = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :]).unbind(axis + 1)
        x = torch.maximum(sides[0], sides[1])
    return x


def voxel_rows(x: Tensor) -> Tensor:
    """Return `x` (B, C, X, Y, Z), channels last in memory, as rows (B * X * Y * Z, C) of the same memory."""
    return x.permute(0, 2, 3, 4, 1).view(-1, x.shape[1])


def passes(rows: Tensor) -> tuple[Tensor, ...]:
    """Return `rows` (n, C) in parts that stay in cache."""
    parts: tuple[Tensor, ...] = torch.split(rows, max(1, ROWS // rows.shape[1]))
    return parts


def statistics(rows: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance, (C,) float64, of `rows` (voxels, C) in `groups` groups of channels."""
    parts = passes(rows)
    sums = torch.stack([part.sum(0) for part in parts]).double().sum(0)  # (C,)
    mean = group_mean(sums, groups) / len(rows)
    centre = mean.float()
    squares = torch.stack([(part - centre).square_().sum(0) for part in parts]).double().sum(0)
    return mean, group_mean(squares, groups) / len(rows) - (mean - centre).square()


def group_mean(values: Tensor, groups: int) -> Tensor:
    """Return `values` (C,), each replaced by the mean of its group of channels."""
    return values.view(groups, -1).mean(1).repeat_interleave(len(values) // groups)


def _affine(rows: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Return a and b (C,) such that a * rows + b is `rows` (voxels, C) normalised in `groups` groups of channels."""
    mean, variance = statistics(rows, groups)
    return affine(mean, (variance + eps).rsqrt(), weight, bias)


def affine(mean: Tensor, scale: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return a and b (C,), float32, of a norm with `mean`, `scale` (1 / deviation) and its affine part, all (C,)."""
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale.float(), shift.float()
