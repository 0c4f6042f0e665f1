"""The head as one GPU kernel: each voxel's features are read once, and only logits are written.

The matrix form writes and reads 16 hidden numbers per voxel and class; here they stay in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
PARAMETERS = 153


@triton.jit
def _dot(w, b, x0, x1, x2, x3, x4, x5, x6, x7):
    """One output of a layer of 8 inputs; w, b: where its weights and its bias lie."""
    low = tl.load(w) * x0 + tl.load(w + 1) * x1 + tl.load(w + 2) * x2 + tl.load(w + 3) * x3
    high = tl.load(w + 4) * x4 + tl.load(w + 5) * x5 + tl.load(w + 6) * x6 + tl.load(w + 7) * x7
    return low + high + tl.load(b)


@triton.jit
def _relu(x):
    """ReLU that keeps NaN, as PyTorch's does: a plain maximum would turn it into 0, and no one would notice it."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _layer(w, b, x0, x1, x2, x3, x4, x5, x6, x7):
    """A layer of 8 outputs and ReLU."""
    y0 = _relu(_dot(w, b, x0, x1, x2, x3, x4, x5, x6, x7))
    y1 = _relu(_dot(w + 8, b + 1, x0, x1, x2, x3, x4, x5, x6, x7))
    y2 = _relu(_dot(w + 16, b + 2, x0, x1, x2, x3, x4, x5, x6, x7))
    y3 = _relu(_dot(w + 24, b + 3, x0, x1, x2, x3, x4, x5, x6, x7))
    y4 = _relu(_dot(w + 32, b + 4, x0, x1, x2, x3, x4, x5, x6, x7))
    y5 = _relu(_dot(w + 40, b + 5, x0, x1, x2, x3, x4, x5, x6, x7))
    y6 = _relu(_dot(w + 48, b + 6, x0, x1, x2, x3, x4, x5, x6, x7))
    y7 = _relu(_dot(w + 56, b + 7, x0, x1, x2, x3, x4, x5, x6, x7))
    return y0, y1, y2, y3, y4, y5, y6, y7


@triton.jit
def _head(features, parameters, logits, voxels, classes, SIZE: tl.constexpr):
    """features (B, 8, N), parameters (B, C, 153), logits (B, C, N); a program does SIZE voxels of a sample."""
    sample = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < voxels
    x = features + sample * 8 * voxels + at
    x0 = tl.load(x, mask=inside, other=0.0).to(tl.float32)
    x1 = tl.load(x + voxels, mask=inside, other=0.0).to(tl.float32)
    x2 = tl.load(x + 2 * voxels, mask=inside, other=0.0).to(tl.float32)
    x3 = tl.load(x + 3 * voxels, mask=inside, other=0.0).to(tl.float32)
    x4 = tl.load(x + 4 * voxels, mask=inside, other=0.0).to(tl.float32)
    x5 = tl.load(x + 5 * voxels, mask=inside, other=0.0).to(tl.float32)
    x6 = tl.load(x + 6 * voxels, mask=inside, other=0.0).to(tl.float32)
    x7 = tl.load(x + 7 * voxels, mask=inside, other=0.0).to(tl.float32)
    for c in range(classes):
        w = parameters + (sample * classes + c) * 153  # 8x8, 8x8, 1x8 weights, then 8, 8, 1 biases
        y0, y1, y2, y3, y4, y5, y6, y7 = _layer(w, w + 136, x0, x1, x2, x3, x4, x5, x6, x7)
        z0, z1, z2, z3, z4, z5, z6, z7 = _layer(w + 64, w + 144, y0, y1, y2, y3, y4, y5, y6, y7)
        logit = _dot(w + 128, w + 152, z0, z1, z2, z3, z4, z5, z6, z7)
        tl.store(logits + (sample * classes + c) * voxels + at, logit, mask=inside)


def head_kernel(features: Tensor, parameters: Tensor) -> Tensor:
    """Return logits (B, C, N) float32 of `features` (B, 8, N) and `parameters` (B, C, 153) on a GPU."""
    features, parameters = features.contiguous(), parameters.float().contiguous()
    batch, classes, numbers = parameters.shape
    if numbers != PARAMETERS or features.shape[:2] != (batch, 8):
        raise ValueError(f"head: features {tuple(features.shape)}, parameters {tuple(parameters.shape)}")
    voxels = features.shape[2]
    logits = torch.empty(batch, classes, voxels, device=features.device)
    _head[(triton.cdiv(voxels, BLOCK), batch)](features, parameters, logits, voxels, classes, SIZE=BLOCK)
    return logits


def try_out() -> None:
    """Build and run the kernel; raises whatever stops it."""
    head_kernel(torch.zeros(1, 8, 1, device="cuda"), torch.zeros(1, 1, PARAMETERS, device="cuda"))
