"""The logits of a finished slab read once each on a GPU: class bits, and sums over masks, without asking it how many.

PyTorch gathers the voxels of a mask, for which the host has to wait for their number, class by class.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from imaging.bits import WORD_BITS

SIZE = 1024
"""Voxels of a program."""
_SIZES = ["voxels", "ny", "nz", "of_class", "of_x", "of_y", "of_z", "of_word", "word_x", "word_y", "word_z"]
"""Not specialised: one build does for slabs of every shape."""


@triton.jit
def _places(at, ny, nz, of_x, of_y, of_z):
    """Where voxel `at` of a part of (X, ny, nz) lies, by strides."""
    return (at // (ny * nz)) * of_x + (at // nz) % ny * of_y + at % nz * of_z


@triton.jit(do_not_specialize=_SIZES)
def _threshold(
    logits, firsts, rows, masks, words, sums, counts, voxels, ny, nz, of_class, of_x, of_y, of_z, SIZE: tl.constexpr
):  # fmt: skip
    """words (W, N): bits where logits are above 0. sums, counts (C, programs): of sigmoids there, and of voxels."""
    word = tl.program_id(1)
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < voxels
    place = logits + _places(at, ny, nz, of_x, of_y, of_z)
    made = tl.zeros((SIZE,), dtype=tl.int32)
    for number in range(tl.load(firsts + word), tl.load(firsts + word + 1)):
        row = tl.load(rows + number).to(tl.int64)
        own = tl.load(place + row * of_class, mask=inside, other=0.0)
        there = own > 0
        made |= tl.where(there, tl.load(masks + number), 0)
        into = row * tl.num_programs(0) + tl.program_id(0)
        tl.store(sums + into, tl.sum(tl.where(there, 1.0 / (1.0 + tl.exp(-own)), 0.0), axis=0))
        tl.store(counts + into, tl.sum(there.to(tl.int32), axis=0))
    tl.store(words + word.to(tl.int64) * voxels + at, made, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def _entropy(
    logits, firsts, rows, masks, words, sums, counts, voxels, ny, nz, of_class, of_x, of_y, of_z,
    of_word, word_x, word_y, word_z, SIZE: tl.constexpr,
):  # fmt: skip
    """sums, counts (C, programs): of the entropy in bits of the logits where `words` have the class's bit."""
    word = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < voxels
    place = logits + _places(at, ny, nz, of_x, of_y, of_z)
    bits = tl.load(words + word * of_word + _places(at, ny, nz, word_x, word_y, word_z), mask=inside, other=0)
    for number in range(tl.load(firsts + word), tl.load(firsts + word + 1)):
        row = tl.load(rows + number).to(tl.int64)
        there = (bits & tl.load(masks + number)) != 0
        own = tl.load(place + row * of_class, mask=there, other=0.0)
        # log(1 + e^l) - l p by e^-|l|, which overflows nowhere
        small = tl.exp(-tl.abs(own))
        sigmoid = tl.where(own > 0, 1.0, small) / (1.0 + small)
        nats = tl.maximum(own, 0.0) + tl.log(1.0 + small) - own * sigmoid
        into = row * tl.num_programs(0) + tl.program_id(0)
        tl.store(sums + into, tl.sum(tl.where(there, nats, 0.0), axis=0) * 1.4426950408889634)  # 1 / ln 2
        tl.store(counts + into, tl.sum(there.to(tl.int32), axis=0))


@functools.lru_cache(maxsize=8)
def _by_word(channels: tuple[int, ...], words: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each word's classes begin (W + 1), and by word, each class's row and its bit, all int32."""
    rows = sorted(range(len(channels)), key=lambda row: channels[row])
    firsts = [sum(channel < WORD_BITS * word for channel in channels) for word in range(words + 1)]
    masks = torch.tensor([1 << channels[row] % WORD_BITS for row in rows]).to(torch.int32)  # bit 31 is the sign
    return (
        torch.tensor(firsts, dtype=torch.int32, device=device),
        torch.tensor(rows, dtype=torch.int32, device=device),
        masks.to(device),
    )


def threshold(logits: Tensor, channels: Sequence[int], words: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bits (W, x, y, z) int32 where `logits` (C, x, y, z) are above 0, and sums and counts, (C,) float64.

    The sums are those of the probabilities inside each mask. channels: the bit of each row of the logits.
    """
    shape, strides = logits.shape, logits.stride()
    made = torch.empty((words, *shape[1:]), dtype=torch.int32, device=logits.device)
    voxels = made[0].numel()
    sums, counts, grid = _parts(logits, voxels, words)
    with torch.cuda.device(logits.get_device()):  # Triton launches on the current one
        _threshold[grid](
            logits, *_by_word(tuple(channels), words, logits.device), made, sums, counts, voxels, *shape[2:], *strides,
            SIZE=SIZE,
        )  # fmt: skip
    return made, sums.sum(1, dtype=torch.float64), counts.sum(1).double()


def entropy(logits: Tensor, words: Tensor, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return for each class the sum of `binary_entropy` over the voxels with its bit, and their number, (C,) float64.

    logits: (C, x, y, z). words: (W, x, y, z) int32. channels: the bit of each row of the logits.
    """
    voxels = words[0].numel()
    sums, counts, grid = _parts(logits, voxels, len(words))
    with torch.cuda.device(logits.get_device()):
        _entropy[grid](
            logits, *_by_word(tuple(channels), len(words), logits.device), words, sums, counts, voxels,
            *logits.shape[2:], *logits.stride(), *words.stride(), SIZE=SIZE,
        )  # fmt: skip
    return sums.sum(1, dtype=torch.float64), counts.sum(1).double()


def _parts(logits: Tensor, voxels: int, words: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return room for sums and counts of each class and program, and the programs of a launch."""
    programs = triton.cdiv(voxels, SIZE)
    sums = torch.empty(len(logits), programs, device=logits.device)
    return sums, torch.empty_like(sums, dtype=torch.int32), (programs, words)


def try_out() -> None:
    """Build and run the kernels; raises whatever stops them."""
    logits = torch.zeros(1, 1, 1, 2, device="cuda")
    made, _, _ = threshold(logits, (0,), 1)
    entropy(logits, made, (0,))
