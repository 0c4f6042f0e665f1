"""Runs the GPU kernels in Triton's interpreter on a CPU, against PyTorch. A process: the choice is made at import."""

from __future__ import annotations

import torch
from torch.nn import functional

from benchmarks.gpu_convolution_triton import convolve, packed
from models import slab_triton
from models.head import head_logits
from models.head_triton import head_kernel
from models.infer_bits import threshold
from models.norm_triton import apply, moments
from models.scores import binary_entropy
from models.token_triton import add_norm, norm


def _norms(samples: int, voxels: int, channels: int, dtype: torch.dtype, near: float) -> None:
    rows = (torch.randn(samples, voxels, channels) * 3 + 50).to(dtype)
    mean, variance = moments(rows)
    assert torch.allclose(mean, rows.double().mean(1), atol=1e-4)
    assert torch.allclose(variance, rows.double().var(1, unbiased=False), atol=1e-3)
    other = torch.randn(samples, voxels, channels).to(dtype)
    scaling, own = torch.rand(2, 2, samples, channels)
    for beside, beside_scaling in ((None, None), (other, None), (other, tuple(own))):
        into = torch.full_like(rows, 7)
        apply(rows, into, tuple(scaling), 0.01, beside, beside_scaling)
        expected = rows.float() * scaling[0][:, None] + scaling[1][:, None]
        if beside is not None:
            wide = other.float()
            expected += wide if beside_scaling is None else wide * own[0][:, None] + own[1][:, None]
        assert torch.allclose(into.float(), functional.leaky_relu(expected, 0.01), atol=near, rtol=near)


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
    mean, variance = moments(rows)
    assert not mean[0, 3].isfinite()
    assert not variance[0, 3].isfinite()
    for slope in (0.0, 0.01):
        into = torch.empty_like(rows)
        scaling = (variance.rsqrt().float(), (-mean * variance.rsqrt()).float())
        apply(rows, into, scaling, slope)
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


def _convolution(inputs: int, outputs: int, long: int) -> None:
    x = torch.randn(2, inputs, 5, 4, 6).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(outputs, inputs, 3, 3, 3)
    found = convolve(x, packed(weight), outputs, 64, long=long)
    assert torch.allclose(found, functional.conv3d(x, weight, padding=1), atol=1e-3)


if __name__ == "__main__":
    torch.manual_seed(0)
    _norms(2, 1000, 48, torch.bfloat16, 0.02)
    _norms(1, 27, 768, torch.float32, 1e-5)
    _tokens(48, torch.float16, 0.01)
    _tokens(200, torch.float32, 1e-5)
    _slabs((9, 31, 17), 2, (33, 31, 0, 5, 63, 32))
    _slabs((30, 11, 13), 0, (0, 4))
    _convolution(48, 48, 128)
    _convolution(96, 48, 64)
    _convolution(16, 40, 16)
    with torch.no_grad():
        for value in (float("nan"), float("inf")):
            _overflow(value)
        features, parameters = torch.randn(2, 8, 1000), torch.randn(2, 3, 153)
        assert torch.allclose(head_kernel(features, parameters), head_logits(features, parameters), atol=1e-4)
