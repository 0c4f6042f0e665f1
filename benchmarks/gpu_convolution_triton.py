"""A 3x3x3 convolution as an implicit matrix product.

With channels last, the channels of a voxel and of its two neighbours along Z lie side by side: a tap of X and Y is one
run of three times the channels, 144 or 288 numbers, which tensor cores take by 128 and by what is left.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LONG = 128
"""Numbers of a run that one product takes."""


@triton.jit
def _add(
    total, x, weight, start, there, low, high, FIRST, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, LONG: tl.constexpr
):
    """Add the product of numbers FIRST to FIRST + LONG of each run; low, high: whether Z - 1 and Z + 1 are there."""
    at = FIRST + tl.arange(0, LONG)
    seen = there[:, None] & (low[:, None] | (at >= CHANNELS)[None, :]) & (high[:, None] | (at < 2 * CHANNELS)[None, :])
    own = tl.load(x + start[:, None] + at[None, :], mask=seen, other=0.0)
    return tl.dot(own, tl.load(weight + at[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]), total)


@triton.jit
def _convolve(
    x, weight, into, samples, nx, ny, nz,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, VOXELS: tl.constexpr,
    LONG: tl.constexpr, WHOLE: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """x (B, X, Y, Z, INPUTS), weight (9, 3 * INPUTS, WIDTH), into (B, X, Y, Z, OUTPUTS); WHOLE + REST = 3 * INPUTS."""
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    inside = voxel < samples * nx * ny * nz
    z = voxel % nz
    y = voxel // nz % ny
    at_x = voxel // (nz * ny) % nx
    total = tl.zeros((VOXELS, WIDTH), dtype=tl.float32)
    for tap in range(9):
        dx, dy = tap // 3 - 1, tap % 3 - 1
        there = inside & (at_x + dx >= 0) & (at_x + dx < nx) & (y + dy >= 0) & (y + dy < ny)
        start = (voxel + (dx * ny + dy) * nz - 1).to(tl.int64) * INPUTS
        of_tap = weight + tap * 3 * INPUTS * WIDTH
        for first in tl.static_range(0, WHOLE, LONG):
            total = _add(total, x, of_tap, start, there, z > 0, z < nz - 1, first, INPUTS, WIDTH, LONG)
        if REST > 0:
            total = _add(total, x, of_tap, start, there, z > 0, z < nz - 1, WHOLE, INPUTS, WIDTH, REST)
    output = tl.arange(0, WIDTH)
    at = voxel.to(tl.int64)[:, None] * OUTPUTS + output[None, :]
    tl.store(into + at, total.to(into.dtype.element_ty), mask=inside[:, None] & (output < OUTPUTS)[None, :])


def packed(weight: Tensor) -> Tensor:
    """Return `weight` (O, C, 3, 3, 3) as the kernel reads it: (9, 3 * C, O up to the next power of two)."""
    outputs, inputs = weight.shape[:2]
    found = weight.new_zeros(9, 3 * inputs, triton.next_power_of_2(outputs))
    found[..., :outputs] = weight.permute(2, 3, 4, 1, 0).reshape(9, 3 * inputs, outputs)
    return found


def convolve(
    x: Tensor, weight: Tensor, outputs: int, voxels: int = 128, warps: int = 4, stages: int = 3, long: int = LONG
) -> Tensor:
    """Return the convolution (B, O, X, Y, Z) of `x` (B, C, X, Y, Z), both channels last; weight: see `packed`."""
    samples, inputs, nx, ny, nz = x.shape
    rest = 3 * inputs % long
    if rest and (rest < 16 or rest & (rest - 1)):
        raise ValueError(f"{inputs} channels: {rest} of three times as many are left, expected 0, 16, 32 or 64")
    into = torch.empty(samples, nx, ny, nz, outputs, device=x.device, dtype=x.dtype)
    _convolve[(triton.cdiv(samples * nx * ny * nz, voxels),)](
        x, weight, into, samples, nx, ny, nz,
        INPUTS=inputs, OUTPUTS=outputs, WIDTH=weight.shape[2], VOXELS=voxels,
        LONG=long, WHOLE=3 * inputs - rest, REST=rest, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return into.permute(0, 4, 1, 2, 3)
