"""The frugal steps of prediction on a CPU give the numbers of PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.volume_ops import convolve, convolve_joined, frugal, halve, normalise_, project


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0)])
@pytest.mark.parametrize("size", [(1, 1, 1), (4, 6, 8)])
def test_joined_convolution_equals_doubling_and_joining(kernel, padding, size):
    up, conv = nn.ConvTranspose3d(5, 4, 2, 2), nn.Conv3d(7, 6, kernel, padding=padding)
    low, skip = torch.randn(2, 5, *size), torch.randn(2, 3, *(2 * n for n in size))
    found = convolve_joined(low, up, skip, conv.weight, conv.bias, padding)
    assert torch.allclose(found, conv(torch.cat([up(low), skip], dim=1)), atol=1e-5)


def test_joined_convolution_makes_no_doubled_map(monkeypatch):
    up = nn.ConvTranspose3d(2, 2, 2, 2)
    monkeypatch.setattr(up, "forward", lambda _: pytest.fail("the low map was doubled"))
    found = convolve_joined(
        torch.randn(1, 2, 6, 6, 6), up, torch.randn(1, 3, 12, 12, 12), torch.randn(4, 5, 3, 3, 3), None
    )
    assert found.shape == (1, 4, 12, 12, 12)


def test_a_small_map_is_convolved_too():
    conv = nn.Conv3d(3, 4, 3, padding=1)
    x = torch.randn(1, 3, 2, 3, 4)
    assert torch.allclose(convolve(x, conv.weight, conv.bias), conv(x), atol=1e-5)


@pytest.mark.parametrize("slope", [None, 0, 0.01])
def test_normalising_takes_each_sample_alone(slope):
    x = torch.randn(2, 5, 3, 4, 6) * 3 + 50  # a mean far from 0, where squares of sums would lose digits
    weight, bias = torch.randn(5), torch.randn(5)
    expected = functional.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
    if slope is not None:
        expected = functional.leaky_relu(expected, slope)
    assert torch.allclose(normalise_(x.clone(), weight, bias, 1e-5, slope), expected, atol=1e-4)


def test_projection_equals_norm_relu_and_convolution():
    norm, last = nn.GroupNorm(4, 16), nn.Conv3d(16, 8, 1)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 16, 3, 4, 5) + 2
    assert torch.allclose(project(x, norm, last), last(norm(x).relu()).flatten(2), atol=1e-5)


def test_halving_takes_the_largest_of_eight():
    x = torch.randn(2, 3, 2, 4, 6)
    assert torch.equal(halve(x), functional.max_pool3d(x, 2))


def test_gradients_and_half_precision_go_the_plain_way():
    x = torch.zeros(1, 1, 2, 2, 2)
    assert frugal(x)
    assert frugal(x.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not frugal(x)
    with torch.inference_mode(False), torch.enable_grad():
        assert not frugal(x)
