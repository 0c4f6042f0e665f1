"""Runs the GPU kernels in Triton's interpreter on a CPU, against PyTorch. A process: the choice is made at import."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models import norm_triton, slab_triton
from models.head import head_logits
from models.head_triton import head_kernel
from models.infer_bits import threshold
from models.norm_triton import apply, moments, scaling
from models.scores import binary_entropy
from models.token_triton import add_norm, norm

Pair = tuple[Tensor, Tensor]


def _norms(samples: int, voxels: int, channels: int, row: int, dtype: torch.dtype, near: float) -> None:
    """Maps of `channels`, in rows of `row` numbers; what lies behind them is not to be touched."""
    rows = (torch.randn(samples, voxels, row) * 3 + 50).to(dtype)
    own = rows[..., :channels].double()
    mean, variance = own.mean(1), own.var(1, unbiased=False)
    found = moments(rows, channels)
    assert torch.allclose(found[0], mean, atol=1e-4)
    assert torch.allclose(found[1], variance, atol=1e-3)
    weight, bias = torch.rand(2, channels).to(dtype)
    for w, b in ((None, None), (weight, bias), (weight, None)):
        scale = (variance + 1e-5).rsqrt() * (1 if w is None else w.double())
        a, c = scaling(rows, channels, w, b, 1e-5)
        assert torch.allclose(a, scale.float(), atol=1e-4)
        assert torch.allclose(c, ((0 if b is None else b.double()) - mean * scale).float(), atol=1e-2)
    given, beside_given = torch.rand(2, 2, samples, channels)
    for width, of_beside in ((channels, None), (row, None), (channels, beside_given), (1, beside_given)):
        other = torch.randn(samples, voxels, width).to(torch.float32 if width == 1 else dtype)
        _applied(rows, tuple(given), None, None, near)
        _applied(rows, tuple(given), other, None if of_beside is None else tuple(of_beside), near)


def _applied(rows: Tensor, given: Pair, other: Tensor | None, of_other: Pair | None, near: float) -> None:
    channels = given[0].shape[1]
    expected = rows[..., :channels].float() * given[0][:, None] + given[1][:, None]
    if other is not None:
        wide = other[..., :channels].float()
        expected += wide if of_other is None else wide * of_other[0][:, None] + of_other[1][:, None]
    expected = functional.leaky_relu(expected, 0.01)
    for into in (torch.full_like(rows, 7), torch.full_like(rows[..., :channels], 7)):
        apply(rows, into, given, 0.01, other, of_other)
        assert torch.allclose(into[..., :channels].float(), expected, atol=near, rtol=near)
        assert (into[..., channels:] == 7).all()


def _tokens(channels: int, dtype: torch.dtype, near: float) -> None:
    x, y = torch.randn(2, 100, channels).to(dtype) + 3, torch.randn(2, 50, channels).to(dtype)
    weight, bias = torch.rand(2, channels).to(dtype)
    index = torch.randint(-1, 100, (137,), dtype=torch.int32)
    plain = functional.layer_norm(x.float(), (channels,), weight.float(), bias.float())
    assert torch.allclose(norm(x, None, weight, bias, 1e-5).float(), plain, atol=near)
    bare = functional.layer_norm(x.float(), (channels,))
    assert torch.allclose(norm(x, None, None, None, 1e-5).float(), bare, atol=near)
    picked = torch.cat([plain, torch.zeros(2, 1, channels)], dim=1)[:, index.long()]
    assert torch.allclose(norm(x, index, weight, bias, 1e-5).float(), picked, atol=near)
    of_y = torch.randint(0, 50, (100,), dtype=torch.int32)
    total, normed = add_norm(x, y, of_y, weight, bias, 1e-5)
    expected = x + y[:, of_y.long()]
    assert torch.equal(total, expected)
    expected = functional.layer_norm(expected.float(), (channels,), weight.float(), bias.float())
    assert torch.allclose(normed.float(), expected, atol=near)


def _overflow(value: float) -> None:
    """What float16 makes of a number too large has to reach the logits, or nobody would notice."""
    features, parameters = torch.randn(1, 8, 600), torch.randn(1, 3, 153)
    features[0, 2, 7] = value
    logits = head_kernel(features, parameters)
    assert torch.equal(logits.isfinite(), head_logits(features, parameters).isfinite())
    assert not logits[0, :, 7].isfinite().any()
    rows = torch.randn(1, 300, 8).half()
    rows[0, 5, 3] = value
    mean, variance = moments(rows, 8)
    assert not mean[0, 3].isfinite()
    assert not variance[0, 3].isfinite()
    for slope in (0.0, 0.01):
        into = torch.empty_like(rows)
        apply(rows, into, scaling(rows, 8, None, None, 0.0), slope)
        assert into[0, :, 3].isnan().all()
        assert into[0, :, :3].isfinite().all()
    assert norm(rows, None, None, None, 1e-5)[0, 5].isnan().all()


def _slabs(shape: tuple[int, int, int], axis: int, channels: tuple[int, ...]) -> None:
    logits = torch.randn(len(channels), *shape) * 20  # some so sure that they round to 1
    logits[0] = -1.0  # a class nobody found
    logits = logits.narrow(1 + axis, 0, shape[axis] - 2)  # as a finished part lies in its slab
    words, sums, counts = threshold(logits, channels, 2)
    found = slab_triton.threshold(logits, channels, 2)
    assert torch.equal(found[0], words)
    assert torch.allclose(found[1], sums, rtol=1e-5)
    assert torch.equal(found[2], counts)
    part = words.narrow(1 + axis, 1, words.shape[1 + axis] - 1)
    own = logits.narrow(1 + axis, 1, words.shape[1 + axis] - 1)
    sums, counts = slab_triton.entropy(own, part, channels)
    masks = own > 0
    assert torch.equal(counts, masks.sum((1, 2, 3)).double())
    assert torch.allclose(sums, (binary_entropy(own) * masks).sum((1, 2, 3)).double(), rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    torch.manual_seed(0)
    _norms(2, 1000, 48, 64, torch.bfloat16, 0.02)
    _norms(1, 27, 768, 768, torch.float32, 1e-5)
    _norms(2, 150, 1, 1, torch.float32, 1e-5)
    norm_triton.SUMMED, norm_triton.PARTS = 256, 2  # so that a small map has more sums than are added at once
    _norms(1, 600, 48, 64, torch.float16, 0.01)
    _tokens(48, torch.float16, 0.01)
    _tokens(200, torch.float32, 1e-5)
    _slabs((9, 31, 17), 2, (33, 31, 0, 5, 63, 32))
    _slabs((30, 11, 13), 0, (0, 4))
    with torch.no_grad():
        for value in (float("nan"), float("inf")):
            _overflow(value)
        features, parameters = torch.randn(2, 8, 1000), torch.randn(2, 3, 153)
        assert torch.allclose(head_kernel(features, parameters), head_logits(features, parameters), atol=1e-4)
