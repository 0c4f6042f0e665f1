"""Attention of windows on a GPU in one pass: the scores never reach memory, and heads need no turning round.

PyTorch's attention reads what is added to the scores from memory, written out for each window. It is the same for all
of them but for the regions, which are compared here.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
CACHED = 24 << 20
"""Bytes of windows of which all heads are reckoned before the next ones, so that a GPU's cache of 50 MB keeps them."""


@triton.jit
def _over_keys(
    q, k, v, stride, bias, own, regions, far, n,
    MIXED: tl.constexpr, D: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Return attended values (QUERIES, D) of q (QUERIES, D), keys and values in rows `stride` apart."""
    key = tl.arange(0, KEYS)
    at = key[:, None] * stride + tl.arange(0, D)[None, :]
    most = tl.full((QUERIES,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((QUERIES, 8), dtype=tl.float32)  # of every eighth key: each thread adds up those it holds
    found = tl.zeros((QUERIES, D), dtype=tl.float32)
    for first in range(0, n, KEYS):
        added = tl.load(bias + first * QUERIES + tl.arange(0, QUERIES * KEYS))
        added = tl.reshape(added, (KEYS // 16, QUERIES // 16, 8, 4, 2, 2, 2))  # as `_packed` lays it
        added = tl.reshape(tl.permute(added, (1, 5, 2, 0, 4, 3, 6)), (QUERIES, KEYS))
        inside = (first + key < n)[:, None]
        keys = tl.load(k + first * stride + at, mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(keys), acc=added.to(tl.float32))
        if MIXED:
            theirs = tl.load(regions + first + key, mask=first + key < n, other=0)
            scores = tl.where(own[:, None] != theirs[None, :], scores + far, scores)
        higher = tl.maximum(most, tl.max(scores, axis=1))
        shrink = tl.exp2((most - higher) * LOG2E)
        p = tl.exp2(scores * LOG2E - (higher * LOG2E)[:, None])
        total = total * shrink[:, None] + tl.sum(tl.reshape(p, (QUERIES, KEYS // 8, 8)), axis=1)
        values = tl.load(v + first * stride + at, mask=inside, other=0.0)
        found = tl.dot(p.to(values.dtype), values, acc=found * shrink[:, None])
        most = higher
    return found / tl.sum(total, axis=1)[:, None]


@triton.jit(do_not_specialize=["windows", "rows", "n", "heads"])
def _attend(
    qkv, bias, regions, into, windows, rows, n, heads, scale, far,
    MASKED: tl.constexpr, LONG: tl.constexpr, D: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """into (w, n, H * D). bias: see `_packed`. regions (rows, n), if MASKED."""
    window = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    head = tl.program_id(1) % heads
    block = tl.program_id(1) // heads
    if window < windows:
        query = block * QUERIES + tl.arange(0, QUERIES)
        channel = tl.arange(0, D)[None, :]
        inside = (query < n)[:, None]
        stride = 3 * heads * D
        qkv += window.to(tl.int64) * n * stride + head * D
        q = tl.load(qkv + query[:, None] * stride + channel, mask=inside, other=0.0)
        q = (q.to(tl.float32) * scale).to(q.dtype)  # exact where the scale is a power of 2, as it is for D of 16
        blocks = tl.cdiv(n, QUERIES)
        bias += (head * blocks + block) * tl.cdiv(n, KEYS) * QUERIES * KEYS
        k, v = qkv + heads * D, qkv + 2 * heads * D
        own = query
        mixed = False
        if MASKED:
            regions += (window % rows) * n
            token = tl.arange(0, LONG)
            corner = tl.load(regions)
            apart = tl.load(regions + token, mask=token < n, other=corner) != corner
            mixed = tl.max(apart.to(tl.int32), axis=0) > 0
            own = tl.load(regions + query, mask=query < n, other=corner)
        if mixed:
            found = _over_keys(q, k, v, stride, bias, own, regions, far, n, MASKED, D, QUERIES, KEYS)
        else:
            found = _over_keys(q, k, v, stride, bias, own, regions, far, n, False, D, QUERIES, KEYS)
        into += window.to(tl.int64) * n * heads * D + head * D
        tl.store(into + query[:, None] * (heads * D) + channel, found.to(into.dtype.element_ty), mask=inside)


def attend(
    qkv: Tensor,
    bias: Tensor,
    regions: Tensor | None,
    heads: int,
    scale: float,
    far: float,
    *,
    queries: int = 64,
    keys: int = 32,
    warps: int = 4,
    stages: int = 1,
) -> Tensor:
    """Return softmax(scale * q k^T + bias) v, (w, n, H * d), of `qkv` (w, n, 3 * H * d), columns in that order.

    bias: (H, n, n). regions: (W, n) int32, of window i in row i % W: between different ones `far` is added to the
    score; None: all are the same. The rest: tiles of a program, multiples of 16 by 16 scores; its warps and stages.
    Raises ValueError where d is not a power of 2, or below 16.
    """
    windows, n, columns = qkv.shape
    depth = columns // (3 * heads)
    if columns != 3 * heads * depth or depth < 16 or depth & (depth - 1):
        raise ValueError(
            f"{columns} columns for {heads} heads; expected 3 * {heads} * d, d a power of 2 and at least 16"
        )
    qkv = qkv.contiguous()
    into = qkv.new_empty(windows, n, heads * depth)
    groups = min(windows, triton.cdiv(qkv.nbytes, CACHED))
    blocks = triton.cdiv(n, queries)
    _attend[(triton.cdiv(windows, groups), heads * blocks, groups)](
        qkv, _packed(bias, queries, keys), qkv if regions is None else regions.contiguous(), into,
        windows, 1 if regions is None else len(regions), n, heads, scale, far,
        MASKED=regions is not None, LONG=triton.next_power_of_2(n), D=depth, QUERIES=queries, KEYS=keys,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return into


def _packed(bias: Tensor, queries: int, keys: int) -> Tensor:
    """Return `bias` (H, n, n) in tiles (H, blocks of queries, blocks of keys, queries * keys), -inf beyond n.

    Within a tile the eight numbers that a thread holds of 16 x 16 scores lie side by side, and those of its warp next
    to them: read so, they need not be passed between threads.
    """
    heads, n, _ = bias.shape
    down, across = -(-n // queries), -(-n // keys)
    padded = bias.new_full((heads, down * queries, across * keys), float("-inf"))
    padded[:, :n, :n] = bias
    split = padded.view(heads, down, queries // 16, 2, 8, across, keys // 16, 2, 4, 2)
    return split.permute(0, 1, 5, 6, 2, 4, 8, 7, 3, 9).contiguous()


def try_out() -> None:
    """Build and run the kernel; raises whatever stops it."""
    qkv, bias = (torch.zeros(1, 8, wide, dtype=torch.float16, device="cuda") for wide in (48, 8))
    attend(qkv, bias, None, 1, 0.25, -100.0)
    attend(qkv, bias, torch.zeros(1, 8, dtype=torch.int32, device="cuda"), 1, 0.25, -100.0)
