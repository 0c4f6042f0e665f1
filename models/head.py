"""The text-driven head: three 1x1x1 layers whose weights come from the controller, as matrix products over chunks.

The published form copies the feature map once per class and runs grouped convolutions; here the voxels pass in
cache-sized chunks, and training recomputes the hidden layers instead of keeping C x 16 feature maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from models.gpu_kernels import gpu_kernels

WIDTH = 8
PARAMETERS = WIDTH * WIDTH + WIDTH * WIDTH + WIDTH + WIDTH + WIDTH + 1
CHUNK = 1 << 14
"""Voxels times classes in a pass on a CPU: 512 KB a layer in float32, which stays in cache."""
CUDA_CHUNK = 1 << 22
"""The same on a GPU: 128 MB a layer; smaller passes would wait for their launches."""


def split_parameters(parameters: Tensor) -> tuple[Tensor, ...]:
    """Return (w1, w2, w3, b1, b2, b3) of `parameters` (B, C, 153): the weights (out, in) first, then the biases.

    Shapes: (B, C, 8, 8), (B, C, 8, 8), (B, C, 1, 8), (B, C, 8, 1), (B, C, 8, 1), (B, C, 1, 1).
    """
    batch, classes, _ = parameters.shape
    w1, w2, w3, b1, b2, b3 = torch.split(parameters, [64, 64, 8, 8, 8, 1], dim=2)
    return (
        w1.reshape(batch, classes, WIDTH, WIDTH),
        w2.reshape(batch, classes, WIDTH, WIDTH),
        w3.reshape(batch, classes, 1, WIDTH),
        b1.reshape(batch, classes, WIDTH, 1),
        b2.reshape(batch, classes, WIDTH, 1),
        b3.reshape(batch, classes, 1, 1),
    )


def _chunks(features: Tensor, classes: int) -> Iterator[slice]:
    """Yield the passes over the voxels of `features` (8, N)."""
    step = (CHUNK if features.device.type == "cpu" else CUDA_CHUNK) // max(classes, 1)
    for start in range(0, features.shape[1] if classes else 0, step):
        yield slice(start, min(start + step, features.shape[1]))


def _hidden(part: Tensor, layers: tuple[Tensor, ...], space: Tensor) -> tuple[Tensor, Tensor]:
    """Return both hidden layers (C, 8, n) of `part` (8, n), written into `space`, 2 x C * 8 x n numbers or more."""
    w1, w2, _, b1, b2, _ = layers
    classes, voxels = w1.shape[0], part.shape[1]
    first, second = space[:, : classes * WIDTH * voxels]
    one = torch.mm(w1.reshape(-1, WIDTH), part, out=first.view(-1, voxels))  # (C * 8, n)
    one = one.add_(b1.reshape(-1, 1)).relu_().view(classes, WIDTH, voxels)
    two = torch.bmm(w2, one, out=second.view(classes, WIDTH, voxels))  # (C, 8, n)
    return one, two.add_(b2).relu_()


def _space(features: Tensor, layers: tuple[Tensor, ...]) -> Tensor:
    """Return room for the hidden layers of one pass over `features` (8, N)."""
    classes = layers[0].shape[0]
    longest = max((part.stop - part.start for part in _chunks(features, classes)), default=0)
    return features.new_empty(2, classes * WIDTH * longest)


def _write_logits(features: Tensor, layers: tuple[Tensor, ...], into: Tensor, rows: Tensor | slice) -> None:
    """Write the logits of `features` (8, N) under `layers` of R classes into the rows `rows` of `into` (C, N)."""
    space = _space(features, layers)
    for part in _chunks(features, len(layers[0])):
        _, second = _hidden(features[:, part], layers, space)
        into[rows, part] = torch.bmm(layers[2], second).add_(layers[5])[:, 0]  # (R, n)


class _Head(torch.autograd.Function):
    """Logits (B, C, N) of features (B, 8, N) and layer weights; hidden layers are recomputed in the backward pass.

    wanted: for each sample the classes to compute; the other logits are 0 and have no gradient. None: all.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, wanted: Tensor | None, *layers: Tensor) -> Tensor:
        ctx.save_for_backward(features, *layers)
        batch, _, voxels = features.shape
        logits = features.new_zeros(batch, layers[0].shape[1], voxels)
        every = [slice(None)] * batch
        ctx.rows = every if wanted is None or bool(wanted.all()) else [own.nonzero()[:, 0] for own in wanted]
        for b, rows in enumerate(ctx.rows):
            _write_logits(features[b], tuple(layer[b, rows] for layer in layers), logits[b], rows)
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, *layers = ctx.saved_tensors
        from_features = torch.zeros_like(features)
        from_layers = [torch.zeros_like(layer) for layer in layers]
        for b, rows in enumerate(ctx.rows):
            own = tuple(layer[b, rows] for layer in layers)
            into = [torch.zeros_like(layer) for layer in own]
            space = _space(features[b], own)
            for part in _chunks(features[b], len(own[0])):
                hidden = _hidden(features[b, :, part], own, space)
                from_features[b, :, part] = _backward_chunk(
                    features[b, :, part], gradients[0][b, rows, part], own, hidden, into
                )
            for layer, total in zip(from_layers, into, strict=True):
                layer[b, rows] = total
        return from_features, None, *from_layers


def _backward_chunk(
    part: Tensor, gradient: Tensor, layers: tuple[Tensor, ...], hidden: tuple[Tensor, Tensor], into: list[Tensor]
) -> Tensor:
    """Add one pass's weight gradients to `into`; return the gradient of `part` (8, n). `gradient`: (C, n)."""
    w1, w2, w3, *_ = layers
    first, second = hidden
    third = gradient.unsqueeze(1)  # (C, 1, n)
    into[2] += _class_products(third, second)
    into[5] += third.sum(2, keepdim=True)
    to_second = torch.ops.aten.threshold_backward(w3.transpose(1, 2) * third, second, 0.0)  # (C, 8, n)
    into[1] += _class_products(to_second, first)
    into[4] += to_second.sum(2, keepdim=True)
    to_first = torch.ops.aten.threshold_backward(torch.bmm(w2.transpose(1, 2), to_second), first, 0.0)  # (C, 8, n)
    flat = to_first.reshape(-1, part.shape[1])  # (C * 8, n)
    into[0] += (flat @ part.T).view_as(w1)
    into[3] += flat.sum(1).view_as(into[3])
    back: Tensor = w1.reshape(-1, WIDTH).T @ flat
    return back


def _class_products(gradient: Tensor, inputs: Tensor) -> Tensor:
    """Return for each class `gradient` (C, O, n) times `inputs` (C, I, n), summed over voxels: (C, O, I)."""
    if gradient.device.type == "cpu":
        return torch.bmm(gradient, inputs.transpose(1, 2))
    # Few rows and very long sums keep only one block of a GPU busy for each class. All classes against all in one
    # product, of which the diagonal is kept, keep all of it busy.
    whole = gradient.flatten(0, 1) @ inputs.flatten(0, 1).T  # (C * O, C * I)
    return whole.view(*gradient.shape[:2], *inputs.shape[:2]).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def head_logits(features: Tensor, parameters: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Return logits (B, C, N) of `features` (B, 8, N) under one small network per class, `parameters` (B, C, 153).

    wanted: (B, C) bool, the pairs to compute; the others are 0 and pass no gradient. None: all.
    float32, whatever the inputs were; the sum over voxels in a gradient would lose digits in half precision.
    """
    if features.is_cuda and wanted is None and not torch.is_grad_enabled():
        kernels = gpu_kernels("head_triton")
        if kernels is not None:
            found: Tensor = kernels.head_kernel(features, parameters)
            return found
    with torch.autocast(device_type=features.device.type, enabled=False):
        layers = [layer.contiguous() for layer in split_parameters(parameters.float())]
        logits: Tensor = _Head.apply(features.float().contiguous(), wanted, *layers)  # type: ignore[no-untyped-call]
    return logits
