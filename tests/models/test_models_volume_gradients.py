"""The frugal steps of training on a CPU give the numbers and the gradients of PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models import backbone_unet, volume_gradients
from models.backbone_unet import BatchStatisticsNorm, UNetBackbone
from models.volume_gradients import (
    convolve,
    convolve_joined,
    frugal_training,
    norm_relu,
    norm_relu_convolve,
    project_training,
)

NUMBERS = 1e-5
"""Largest difference of a gradient from the plain form's, relative to its length."""
SHORT = 0.1
"""A gradient shorter than this part of the longest counts as so long: a bias before a norm has none but rounding."""


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _norm(channels, kind=BatchStatisticsNorm):
    norm = kind(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def _run(function, module, *maps):
    """Return the result, and by name the gradients of the maps and of the parameters of a copy of `module`."""
    module, maps = copy.deepcopy(module), [part.clone().requires_grad_() for part in maps]
    result = function(module, *maps)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward((result * weights).sum())
    gradients = {f"map {place}": part.grad for place, part in enumerate(maps)}
    return result, gradients | {name: weight.grad for name, weight in module.named_parameters()}


def _compare(ours, plain, module, *maps):
    found, gradients = _run(ours, module, *maps)
    expected, expected_gradients = _run(plain, module, *maps)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)
    least = SHORT * max(float(gradient.norm()) for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        assert gradients[name].shape == gradient.shape
        apart = float((gradients[name] - gradient).norm())
        assert apart <= NUMBERS * max(least, float(gradient.norm())), (name, apart, least)


@pytest.mark.parametrize("inputs", [1, 3])
def test_a_convolution_has_the_plain_gradients(inputs):
    def ours(conv, x):
        return convolve(x, conv.weight, conv.bias)

    _compare(ours, lambda conv, x: conv(x), nn.Conv3d(inputs, 4, 3, padding=1), torch.randn(2, inputs, 3, 5, 7))


@pytest.mark.parametrize("rows", [4 * 16, 1 << 19])
def test_norm_and_relu_have_the_plain_gradients(monkeypatch, rows):
    monkeypatch.setattr("models.volume_ops.ROWS", rows)  # 16 voxels a pass: 13 whole ones and 2 voxels; all in one
    x = torch.randn(2, 4, 3, 5, 7) * 3 + 50  # a mean far from 0, where squares of sums would lose digits
    _compare(lambda norm, x: norm_relu(x, norm), lambda norm, x: norm(x).relu(), _norm(4), x)


def test_norm_relu_and_convolution_have_the_plain_gradients():
    pair = nn.Sequential(_norm(4), nn.ReLU(), nn.Conv3d(4, 5, 3, padding=1))
    x = torch.randn(2, 4, 3, 5, 7) + 2
    _compare(lambda pair, x: norm_relu_convolve(x, pair[0], pair[2]), lambda pair, x: pair(x), pair, x)


@pytest.mark.parametrize("rows", [16 * 16, 1 << 19])
def test_projection_has_the_plain_gradients(monkeypatch, rows):
    monkeypatch.setattr("models.volume_ops.ROWS", rows)  # 16 voxels a pass: 6 whole ones and 9 voxels; all in one
    head = nn.Sequential(_norm(16, lambda n: nn.GroupNorm(4, n)), nn.ReLU(), nn.Conv3d(16, 8, 1))
    x = torch.randn(2, 16, 3, 5, 7) + 2
    _compare(lambda head, x: project_training(x, head[0], head[2]), lambda head, x: head(x).flatten(2), head, x)


def test_running_statistics_move_as_in_a_batch_norm():
    x = torch.randn(2, 4, 3, 5, 7) * 3 + 1
    found, expected = _norm(4), _norm(4)
    for _ in range(2):
        norm_relu(x, found)
        expected(x)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.allclose(found.get_buffer(name), expected.get_buffer(name), atol=1e-5)


@pytest.mark.parametrize("cost", [0, 10**9])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 2)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_joined_convolution_has_the_plain_gradients(monkeypatch, cost, size, biased):
    monkeypatch.setattr(volume_gradients, "KERNEL_COST", cost)  # 0: one kernel for both; large: maps are joined
    both = nn.ModuleList([nn.ConvTranspose3d(5, 4, 2, 2, bias=biased), nn.Conv3d(7, 6, 3, padding=1, bias=biased)])
    low, skip = torch.randn(2, 5, *size), torch.randn(2, 3, *(2 * n for n in size))
    _compare(
        lambda both, low, skip: convolve_joined(low, both[0], skip, both[1]),
        lambda both, low, skip: both[1](torch.cat([both[0](low), skip], dim=1)),
        both,
        low,
        skip,
    )


def test_a_joined_convolution_makes_no_doubled_map(monkeypatch):
    up, conv = nn.ConvTranspose3d(2, 2, 2, 2), nn.Conv3d(5, 4, 3, padding=1)
    monkeypatch.setattr(up, "forward", lambda _: pytest.fail("the low map was doubled"))
    assert convolve_joined(torch.randn(1, 2, 6, 6, 6), up, torch.randn(1, 3, 12, 12, 12), conv).shape[1] == 4


def test_of_convolution_norm_and_relu_one_map_is_kept():
    x, norm = torch.randn(1, 4, 6, 7, 8, requires_grad=True), _norm(4)
    convs = [nn.Conv3d(4, 4, 3, padding=1) for _ in range(2)]
    kept: dict[int, int] = {}

    def keep(part):
        if part.numel() >= x.numel():
            kept[part.data_ptr()] = part.numel()
        return part

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part):
        middle = convolve(x, convs[0].weight, convs[0].bias)
        torch.autograd.backward(norm_relu_convolve(middle, norm, convs[1]).sum())
    assert len(kept) == 2  # the image and the first convolution's map


def _plain(monkeypatch, function):
    """Return what `function` does where the frugal steps are not taken."""

    def run(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(backbone_unet, "frugal_training", lambda _: False)
            return function(*arguments)

    return run


def test_the_network_has_the_plain_gradients(monkeypatch):
    def both(network, x):
        deep, last = network(x)
        return torch.cat([deep.flatten(), last.flatten()])

    x = torch.randn(2, 1, 8, 24, 16)
    network = UNetBackbone()
    found, gradients = _run(both, network, x)
    expected, expected_gradients = _run(_plain(monkeypatch, both), network, x)
    assert torch.allclose(found, expected, atol=1e-3)
    for name, gradient in expected_gradients.items():
        if not name.endswith("conv1.bias"):  # before a batch norm it is 0, but for rounding
            # rounding may switch a ReLU of the deepest maps, of 12 voxels: the steps' own test is 1,000 times as strict
            assert (gradients[name] - gradient).norm() < 0.02 * gradient.norm(), name


def test_each_step_of_the_network_has_the_plain_gradients(monkeypatch):
    down, up = backbone_unet._Down(2, 3, 4), backbone_unet._Up(4, 2, 3)
    _compare(lambda step, x: step(x), _plain(monkeypatch, lambda step, x: step(x)), down, torch.randn(2, 2, 3, 5, 7))
    low, skip = torch.randn(2, 4, 3, 1, 5), torch.randn(2, 2, 6, 2, 10)
    _compare(lambda step, *maps: step(*maps), _plain(monkeypatch, lambda step, *maps: step(*maps)), up, low, skip)


def test_a_step_repeated_is_the_same_to_the_last_bit():
    network, x = UNetBackbone(), torch.randn(2, 1, 8, 24, 16)
    once, again = (_run(lambda network, x: network(x)[1], network, x)[1] for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_prediction_half_precision_and_norms_in_eval_mode_go_the_plain_way(monkeypatch):
    x = torch.zeros(1, 2, 2, 3, 4)
    assert frugal_training(x)
    assert not frugal_training(x.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not frugal_training(x)
    with torch.no_grad():
        assert not frugal_training(x)
    monkeypatch.setattr(backbone_unet, "norm_relu", lambda *_: pytest.fail("a frozen norm was trained"))
    step = backbone_unet._Down(2, 3, 4)
    step.ops[0].bn1.eval()
    assert step(x).shape == (1, 4, 2, 3, 4)


def test_a_single_voxel_is_refused_as_by_a_batch_norm():
    with pytest.raises(ValueError, match="more than 1 value"):
        backbone_unet._Down(2, 3, 4)(torch.zeros(1, 2, 1, 1, 1))
