"""Steps of a backbone in training on a CPU, in less time and memory than PyTorch's own; gradients are the same.

Of a convolution, its norm and ReLU only the convolved map is kept: what was normalised is made again, in one pass, when
the next convolution's weights need it. Maps lie channels last, as in prediction (`models.volume_ops`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.volume_ops import affine, channels_last, group_mean, passes, project, statistics, voxel_rows
from models.volume_ops import convolve as convolve_forward

KERNEL_COST = 512
"""What making a joined kernel costs per pair of channels, in products of a convolution (measured, with gradients)."""


def frugal_training(x: Tensor) -> bool:
    """Whether `x` (B, C, X, Y, Z) is to take these steps: on a CPU, in float32, eagerly, with gradients."""
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    eager = not torch.compiler.is_compiling()  # a compiler does better with the plain form
    return x.device.type == "cpu" and exact and eager and torch.is_grad_enabled()


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3x3x3 convolution of `x` (B, C, X, Y, Z), channels last; weight: (O, C, 3, 3, 3)."""
    found: Tensor = _Convolve.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return found


def norm_relu(x: Tensor, norm: nn.BatchNorm3d) -> Tensor:
    """Return `relu(norm(x))` of a convolved `x` (B, C, X, Y, Z); `norm` moves its running statistics."""
    found: Tensor = _NormRelu.apply(x, norm.weight, norm.bias, *_batch_statistics(x, norm))  # type: ignore[no-untyped-call]
    return found


def norm_relu_convolve(x: Tensor, norm: nn.BatchNorm3d, conv: nn.Conv3d) -> Tensor:
    """Return `conv(relu(norm(x)))` of a convolved `x` (B, C, X, Y, Z), of which alone a map is kept."""
    found: Tensor = _NormReluConvolve.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, *_batch_statistics(x, norm), conv.weight, conv.bias
    )
    return found


def convolve_joined(low: Tensor, up: nn.ConvTranspose3d, skip: Tensor, conv: nn.Conv3d) -> Tensor:
    """Return `conv(cat([up(low), skip]))` (B, O, X, Y, Z), neither doubled map nor joined map ever made.

    low: (B, C, X/2, Y/2, Z/2). up: kernel 2, stride 2. skip: (B, S, X, Y, Z). conv: 3x3x3. Doubling and then
    convolving is one transposed convolution with a kernel of 4 and stride 2: 8 products a voxel where 27 were.
    """
    grown, voxels = up.out_channels, skip[:, 0].numel()
    if 27 * voxels * grown < 8 * voxels * up.in_channels + KERNEL_COST * grown * up.in_channels:
        # on a small map the kernel would cost more than it saves
        return convolve(torch.cat([up(low), skip], dim=1), conv.weight, conv.bias)
    from_up = conv.weight[:, :grown]
    # (C, O, 4, 4, 4): the weights of both, convolved with each other
    kernel = functional.conv_transpose3d(from_up.flip(2, 3, 4), up.weight.transpose(0, 1)).transpose(0, 1)
    found = convolve(skip, conv.weight[:, grown:], conv.bias)
    found += functional.conv_transpose3d(channels_last(low), kernel, stride=2, padding=1)
    if up.bias is None:
        return found
    return found.add_(_spread(up.bias, from_up, found.shape[2:]))


def project_training(x: Tensor, norm: nn.GroupNorm, last: nn.Conv3d) -> Tensor:
    """Return `last(relu(norm(x)))` (B, O, X * Y * Z) of `x` (B, C, X, Y, Z), `last` with 1x1x1 kernels."""
    found: Tensor = _Project.apply(x, norm, last, norm.weight, norm.bias, last.weight, last.bias)  # type: ignore[no-untyped-call]
    return found


def _spread(constant: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """Return the convolution (O, X, Y, Z) of a map of `size`, 2 or more, that is `constant` (M,) everywhere.

    weight: (O, M, 3, 3, 3). The convolution differs at the border, where it sees less of the map.
    """
    few = functional.conv3d(constant[None, :, None, None, None].expand(1, -1, 3, 3, 3), weight, padding=1)
    found = few[0].permute(1, 2, 3, 0)  # (3, 3, 3, O): a first, an inner and a last voxel along each axis
    for axis, voxels in enumerate(size):
        first, inner, last = torch.split(found, 1, dim=axis)
        shape = list(found.shape)
        shape[axis] = voxels - 2
        found = torch.cat([first, inner.expand(shape), last], dim=axis)
    return found.permute(3, 0, 1, 2)


def _batch_statistics(x: Tensor, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / deviation (C,) of `x`, and move the running statistics of `norm` as PyTorch does."""
    rows = voxel_rows(channels_last(x.detach()))
    mean, variance = statistics(rows, x.shape[1])
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.float(), momentum)
        norm.running_var.lerp_((variance * (len(rows) / (len(rows) - 1))).float(), momentum)
    return mean, (variance + norm.eps).rsqrt()


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolve_forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return _convolution_backward(gradient, x, weight, ctx.needs_input_grad)


class _NormRelu(torch.autograd.Function):
    """ReLU of `x`, normalised by `mean` and `scale` (C,), which are those of `x`.

    The result is kept, too: whoever reads it keeps it anyway.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        x = channels_last(x)
        found = _norm_relu(x, *affine(mean, scale, weight, bias))
        ctx.save_for_backward(x, found, weight, mean, scale)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, found, weight, mean, scale = ctx.saved_tensors
        into = torch.empty_like(x)  # the gradient may be somebody else's, too
        _relu_backward(voxel_rows(channels_last(gradient)), voxel_rows(found), voxel_rows(into))
        from_affine = _norm_backward_(voxel_rows(into), voxel_rows(x), mean, scale, weight, len(weight))
        return into, *from_affine, None, None


class _NormReluConvolve(torch.autograd.Function):
    """Convolution of what `_NormRelu` gives, which is made again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        scale: Tensor,
        kernel: Tensor,
        constant: Tensor | None,
    ) -> Tensor:
        x = channels_last(x)
        ctx.save_for_backward(x, weight, bias, mean, scale, kernel)
        return convolve_forward(_norm_relu(x, *affine(mean, scale, weight, bias)), kernel, constant)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, scale, kernel = ctx.saved_tensors
        middle = _norm_relu(x, *affine(mean, scale, weight, bias))
        into, *from_conv = _convolution_backward(gradient, middle, kernel, (True, *ctx.needs_input_grad[5:]))
        into = channels_last(into)
        _relu_backward(voxel_rows(into), voxel_rows(middle), voxel_rows(into))
        from_affine = _norm_backward_(voxel_rows(into), voxel_rows(x), mean, scale, weight, len(weight))
        return into, *from_affine, None, None, *from_conv


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.GroupNorm, last: nn.Conv3d, *weights: Tensor) -> Tensor:
        ctx.norm = norm.num_groups, norm.eps
        ctx.save_for_backward(x, *weights)
        return project(x, norm, last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kernel, _ = ctx.saved_tensors
        groups, eps = ctx.norm
        x, matrix = channels_last(x), kernel.flatten(1)  # (O, C)
        into, from_weight, from_bias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        from_matrix = torch.zeros_like(matrix)
        for sample, given, back in zip(x, gradient, into, strict=True):  # given: (O, voxels)
            rows, to_rows = voxel_rows(sample[None]), voxel_rows(back[None])
            mean, variance = statistics(rows, groups)
            scale = (variance + eps).rsqrt()
            a, b = affine(mean, scale, weight, bias)
            done = 0
            for part, to_part in zip(passes(rows), passes(to_rows), strict=True):
                own = given[:, done : done + len(part)]  # (O, n)
                hidden = part.mul(a).add_(b).relu_()  # (n, C)
                from_matrix.addmm_(own, hidden)
                _relu_backward(own.T @ matrix, hidden, to_part)
                done += len(part)
            found = _norm_backward_(to_rows, rows, mean, scale, weight, groups)
            from_weight += found[0]
            from_bias += found[1]
        return into, None, None, from_weight, from_bias, from_matrix.view_as(kernel), gradient.sum((0, 2))


def _norm_relu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return relu(a * x + b) of `x` (B, C, X, Y, Z), channels last; a, b: (C,)."""
    found = torch.empty_like(x)
    for part, into in zip(passes(voxel_rows(x)), passes(voxel_rows(found)), strict=True):
        torch.mul(part, a, out=into).add_(b).relu_()
    return found


def _relu_backward(gradient: Tensor, found: Tensor, into: Tensor) -> None:
    """Write into `into` the rows of `gradient` where those `found` (n, C) are above 0, else 0."""
    for part, own, to_part in zip(passes(gradient), passes(found), passes(into), strict=True):
        torch.ops.aten.threshold_backward(part, own, 0, grad_input=to_part)


def _norm_backward_(
    gradient: Tensor, rows: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """Turn the `gradient` of normalised `rows`, both (n, C), into that of `rows`, in place.

    mean, scale: (C,), float64, the mean and 1 / deviation of the groups of channels. Returns the gradients of the
    affine part, (C,) and (C,).
    """
    centre = mean.float()
    parts = list(zip(passes(gradient), passes(rows), strict=True))
    from_bias = torch.stack([part.sum(0) for part, _ in parts]).double().sum(0)
    products = torch.stack([(own - centre).mul_(part).sum(0) for part, own in parts]).double().sum(0)
    from_weight = (products - (mean - centre) * from_bias) * scale
    # gradient: scale * (weight * gradient - its mean - normalised row * mean of weight * gradient * normalised row)
    by_row = -scale.square() * group_mean(weight * from_weight, groups) / len(rows)
    constant = -scale * group_mean(weight * from_bias, groups) / len(rows) - by_row * mean
    a, b, c = (weight * scale).float(), by_row.float(), constant.float()
    for part, own in parts:
        part.mul_(a).addcmul_(own, b).add_(c)
    return from_weight.float(), from_bias.float()


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
    """Return the gradients of `x`, `weight` and bias of a 3x3x3 convolution, None where not `wanted`."""
    ones = [1, 1, 1]
    found: tuple[Any, ...] = torch.ops.aten.convolution_backward(
        channels_last(gradient), channels_last(x), weight, [len(weight)], ones, ones, ones, False, [0] * 3, 1, wanted
    )
    return found
