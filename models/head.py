"""The text-driven head: three 1x1x1 layers whose weights come from the controller, as matrix products over chunks.

The published form copies the feature map once per class and runs grouped convolutions; here the voxels pass in
cache-sized chunks, and training recomputes the hidden layers instead of keeping C x 16 feature maps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WIDTH = 8
PARAMETERS = WIDTH * WIDTH + WIDTH * WIDTH + WIDTH + WIDTH + WIDTH + 1
CHUNK = 2048
"""Voxels a pass: 32 classes x 8 channels x 2048 float32 are 2 MB, which stays in cache."""


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


def _hidden(part: Tensor, layers: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    w1, w2, _, b1, b2, _ = layers
    classes = w1.shape[0]
    first = torch.addmm(b1.reshape(-1, 1), w1.reshape(-1, WIDTH), part).relu_()  # (C * 8, n)
    first = first.view(classes, WIDTH, -1)  # (C, 8, n)
    second = torch.baddbmm(b2, w2, first).relu_()  # (C, 8, n)
    return first, second


class _Head(torch.autograd.Function):
    """Logits (B, C, N) of features (B, 8, N) and layer weights; hidden layers are recomputed in the backward pass.

    wanted: for each sample the classes to compute; the other logits are 0 and have no gradient.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, wanted: list[Tensor], *layers: Tensor) -> Tensor:
        ctx.save_for_backward(features, *layers)
        ctx.wanted = wanted
        batch, _, voxels = features.shape
        logits = features.new_zeros(batch, layers[0].shape[1], voxels)
        for b, rows in enumerate(wanted):
            own = tuple(layer[b, rows] for layer in layers)
            for start in range(0, voxels if len(rows) else 0, CHUNK):
                _, second = _hidden(features[b, :, start : start + CHUNK], own)
                logits[b, rows, start : start + CHUNK] = torch.baddbmm(own[5], own[2], second)[:, 0]
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, *layers = ctx.saved_tensors
        from_features = torch.zeros_like(features)
        from_layers = [torch.zeros_like(layer) for layer in layers]
        for b, rows in enumerate(ctx.wanted):
            own = tuple(layer[b, rows] for layer in layers)
            into = [torch.zeros_like(layer) for layer in own]
            for start in range(0, features.shape[2] if len(rows) else 0, CHUNK):
                stop = start + CHUNK
                from_features[b, :, start:stop] = _backward_chunk(
                    features[b, :, start:stop], gradients[0][b, rows, start:stop], own, into
                )
            for layer, part in zip(from_layers, into, strict=True):
                layer[b, rows] = part
        return from_features, None, *from_layers


def _backward_chunk(part: Tensor, gradient: Tensor, layers: tuple[Tensor, ...], into: list[Tensor]) -> Tensor:
    """Add one chunk's weight gradients to `into`; return the gradient of `part` (8, n). `gradient`: (C, n)."""
    w1, w2, w3, *_ = layers
    first, second = _hidden(part, layers)
    third = gradient.unsqueeze(1)  # (C, 1, n)
    into[2] += torch.bmm(third, second.transpose(1, 2))
    into[5] += third.sum(2, keepdim=True)
    to_second = torch.ops.aten.threshold_backward(w3.transpose(1, 2) * third, second, 0.0)  # (C, 8, n)
    into[1] += torch.bmm(to_second, first.transpose(1, 2))
    into[4] += to_second.sum(2, keepdim=True)
    to_first = torch.ops.aten.threshold_backward(torch.bmm(w2.transpose(1, 2), to_second), first, 0.0)  # (C, 8, n)
    flat = to_first.reshape(-1, part.shape[1])  # (C * 8, n)
    into[0] += (flat @ part.T).view_as(w1)
    into[3] += flat.sum(1).view_as(into[3])
    back: Tensor = w1.reshape(-1, WIDTH).T @ flat
    return back


def head_logits(features: Tensor, parameters: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Return logits (B, C, N) of `features` (B, 8, N) under one small network per class, `parameters` (B, C, 153).

    wanted: (B, C) bool, the pairs to compute; the others are 0 and pass no gradient. None: all.
    float32, whatever the inputs were; the sum over voxels in a gradient would lose digits in half precision.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        layers = split_parameters(parameters.float())
        batch, classes, _ = parameters.shape
        every = torch.arange(classes, device=features.device)
        rows = [every if wanted is None else every[wanted[b]] for b in range(batch)]
        logits: Tensor = _Head.apply(features.float().contiguous(), rows, *layers)  # type: ignore[no-untyped-call]
    return logits
