"""A 3x3x3 convolution as an implicit matrix product, its channels by sixteens, as tensor cores take them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

STEP = 16


@triton.jit
def _convolve(
    x, weight, into, samples, nx, ny, nz,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, VOXELS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """x (B, X, Y, Z, INPUTS), weight (27, INPUTS, WIDTH), into (B, X, Y, Z, OUTPUTS)."""
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    inside = voxel < samples * nx * ny * nz
    z = voxel % nz
    y = voxel // nz % ny
    at_x = voxel // (nz * ny) % nx
    channel = tl.arange(0, STEP)
    output = tl.arange(0, WIDTH)
    total = tl.zeros((VOXELS, WIDTH), dtype=tl.float32)
    for tap in range(27):
        dx, dy, dz = tap // 9 - 1, tap // 3 % 3 - 1, tap % 3 - 1
        there = inside & (at_x + dx >= 0) & (at_x + dx < nx) & (y + dy >= 0) & (y + dy < ny)
        there = there & (z + dz >= 0) & (z + dz < nz)
        source = (voxel + (dx * ny + dy) * nz + dz).to(tl.int64) * INPUTS
        for first in tl.static_range(0, INPUTS, STEP):
            seen = tl.load(x + source[:, None] + first + channel[None, :], mask=there[:, None], other=0.0)
            own = tl.load(weight + (tap * INPUTS + first + channel)[:, None] * WIDTH + output[None, :])
            total = tl.dot(seen, own, total)
    at = voxel.to(tl.int64)[:, None] * OUTPUTS + output[None, :]
    tl.store(into + at, total.to(into.dtype.element_ty), mask=inside[:, None] & (output < OUTPUTS)[None, :])


def packed(weight: Tensor) -> Tensor:
    """Return `weight` (O, C, 3, 3, 3) as the kernel reads it: (27, C, O up to the next power of two)."""
    outputs, inputs = weight.shape[:2]
    found = weight.new_zeros(27, inputs, triton.next_power_of_2(outputs))
    found[..., :outputs] = weight.permute(2, 3, 4, 1, 0).reshape(27, inputs, outputs)
    return found


def convolve(x: Tensor, weight: Tensor, outputs: int, voxels: int = 128, warps: int = 4, stages: int = 3) -> Tensor:
    """Return the convolution (B, O, X, Y, Z) of `x` (B, C, X, Y, Z), both channels last; weight: see `packed`."""
    samples, inputs, nx, ny, nz = x.shape
    if inputs % STEP:
        raise ValueError(f"{inputs} channels, expected a multiple of {STEP}")
    into = torch.empty(samples, nx, ny, nz, outputs, device=x.device, dtype=x.dtype)
    _convolve[(triton.cdiv(samples * nx * ny * nz, voxels),)](
        x, weight, into, samples, nx, ny, nz,
        INPUTS=inputs, OUTPUTS=outputs, WIDTH=weight.shape[2], VOXELS=voxels, STEP=STEP,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return into.permute(0, 4, 1, 2, 3)
