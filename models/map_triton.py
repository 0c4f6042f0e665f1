"""Full-size maps written once on a GPU: a backbone's first convolution, and what a decoder joins.

The first has one channel to read, for which PyTorch's convolutions take many times as long as memory does: here the
taps of a voxel are gathered where they lie, and multiplied by the weights at once. Both can leave channels of 0 behind
their own, for convolutions that are quicker with more.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

VOXELS = 128
"""Voxels of a map that a program convolves at once."""
PIECES = 512
"""Runs of eight channels that a program joins."""


@triton.jit
def _convolve_first(
    x, weight, bias, into,
    PARTS: tl.constexpr, NX: tl.constexpr, NY: tl.constexpr, NZ: tl.constexpr,
    OUTPUTS: tl.constexpr, WIDTH: tl.constexpr, TALL: tl.constexpr, TAPS: tl.constexpr,
    BIASED: tl.constexpr, VOXELS: tl.constexpr,
):  # fmt: skip
    """x (B, PARTS, NX + 2, NY + 2, NZ + 2), weight (TALL, TAPS), into (B, NX, NY, NZ, WIDTH)."""
    sample = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * VOXELS
    voxel = first + tl.arange(0, VOXELS)
    inside = voxel < NX * NY * NZ
    start = (voxel // (NY * NZ) * (NY + 2) + voxel // NZ % NY) * (NZ + 2) + voxel % NZ
    tap = tl.arange(0, TAPS)
    part, dx, dy, dz = tap // 27, tap // 9 % 3, tap // 3 % 3, tap % 3
    offset = ((part * (NX + 2) + dx) * (NY + 2) + dy) * (NZ + 2) + dz
    x += sample * (PARTS * (NX + 2) * (NY + 2) * (NZ + 2))
    # Voxels come last, so that neighbouring lanes read neighbouring numbers.
    seen = (tap < PARTS * 27)[:, None] & inside[None, :]
    columns = tl.load((x + start)[None, :] + offset[:, None], mask=seen, other=0.0)
    channel = tl.arange(0, TALL)
    kernels = tl.load(weight + channel[:, None] * TAPS + tap[None, :])
    found = tl.dot(columns.T, kernels.T)
    if BIASED:
        found += tl.load(bias + channel, mask=channel < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    found = tl.where((channel < OUTPUTS)[None, :], found, 0.0)  # 0 times NaN is none
    into += (sample * (NX * NY * NZ) + first) * WIDTH
    at = tl.arange(0, VOXELS)[:, None] * WIDTH + channel[None, :]
    tl.store(into + at, found.to(into.dtype.element_ty), mask=inside[:, None] & (channel < WIDTH)[None, :])


@triton.jit
def _join(
    fine, skip, into, ny, nz, tiles,
    GROWN: tl.constexpr, SKIPPED: tl.constexpr, WIDTH: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """fine (B, nx, ny, nz, 2, 2, 2, GROWN), skip (B, 2 * nx, 2 * ny, 2 * nz, SKIPPED), into the same with WIDTH.

    A program has a tile of a line along Z; the four lines that one line of `fine` becomes are taken side by side.
    """
    tile, line = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row, corner = line // 4, line % 4
    above = row // ny  # which X of which sample
    of_line = ((2 * above + corner // 2) * 2 * ny + 2 * (row % ny) + corner % 2).to(tl.int64) * (2 * nz)
    fine += row.to(tl.int64) * nz * (8 * GROWN) + corner * (2 * GROWN)
    skip += of_line * SKIPPED
    into += of_line * WIDTH
    piece = tile * PIECES + tl.arange(0, PIECES)
    voxel, channel = piece // (WIDTH // 8), piece % (WIDTH // 8) * 8
    inside = voxel < 2 * nz
    own = fine + (voxel >> 1) * (8 * GROWN) + (voxel & 1) * GROWN + channel
    beside = skip + voxel * SKIPPED + (channel - GROWN)
    eight = tl.arange(0, 8)[None, :]
    source = tl.where((channel < GROWN)[:, None], own[:, None] + eight, beside[:, None] + eight)
    there = inside & (channel < GROWN + SKIPPED)
    found = tl.load(source, mask=there[:, None], other=0.0)
    tl.store(into + ((voxel * WIDTH + channel)[:, None] + eight), found, mask=inside[:, None])


def convolve_first(
    x: Tensor, weight: Tensor, bias: Tensor | None, width: int, voxels: int = VOXELS, warps: int = 4
) -> Tensor:
    """Return the convolution (B, width, X, Y, Z), channels last, of the sum of `x` (B, P, X, Y, Z) over P.

    weight: (O, 1, 3, 3, 3), padding 1; channels from O to `width` are 0. Built anew for each X, Y, Z.
    """
    samples, parts, nx, ny, nz = x.shape
    outputs = len(weight)
    taps = max(32, triton.next_power_of_2(27 * parts))
    tall = max(16, triton.next_power_of_2(width))
    kernels = functional.pad(weight.flatten(1).repeat(1, parts), [0, taps - 27 * parts, 0, tall - outputs])
    into = x.new_empty(samples, nx, ny, nz, width)
    _convolve_first[(triton.cdiv(nx * ny * nz, voxels), samples)](
        functional.pad(x, [1] * 6).contiguous(), kernels, kernels if bias is None else bias, into,
        PARTS=parts, NX=nx, NY=ny, NZ=nz, OUTPUTS=outputs, WIDTH=width, TALL=tall, TAPS=taps,
        BIASED=bias is not None, VOXELS=voxels, num_warps=warps,
    )  # fmt: skip
    return into.permute(0, 4, 1, 2, 3)


def join_maps(fine: Tensor, skip: Tensor, width: int, pieces: int = PIECES, warps: int = 4) -> Tensor:
    """Return the map (B, width, 2x, 2y, 2z), channels last, of M channels of `fine`, then S of `skip`, then 0.

    fine: (B, x, y, z, 8 * M), each voxel's corners by X, Y, Z. skip: (B, S, 2x, 2y, 2z), channels last. M, S and
    `width` are multiples of 8.
    """
    samples, nx, ny, nz, grown = fine.shape
    if grown % 64 or skip.shape[1] % 8 or width % 8:
        raise ValueError(f"{grown // 8} and {skip.shape[1]} channels to {width}: expected multiples of 8")
    into = fine.new_empty(samples, 2 * nx, 2 * ny, 2 * nz, width)
    tiles = triton.cdiv(2 * nz * (width // 8), pieces)
    _join[(samples * nx * ny * 4 * tiles,)](
        fine.contiguous(), skip.permute(0, 2, 3, 4, 1).contiguous(), into, ny, nz, tiles,
        GROWN=grown // 8, SKIPPED=skip.shape[1], WIDTH=width, PIECES=pieces, num_warps=warps,
    )  # fmt: skip
    return into.permute(0, 4, 1, 2, 3)


def try_out() -> None:
    """Build and run the kernels; raises whatever stops them."""
    x, weight = (torch.zeros(1, 1, 3, 3, 3, device="cuda", dtype=torch.float16) for _ in range(2))
    convolve_first(x, weight, None, 8)
    fine = torch.zeros(1, 1, 1, 1, 64, device="cuda", dtype=torch.float16)
    join_maps(fine, fine.view(1, 2, 2, 2, 8).permute(0, 4, 1, 2, 3), 16)
