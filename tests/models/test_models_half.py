"""Prediction in half precision: each step gives PyTorch's numbers, and the whole network's come near those of fp32."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask, get_window_size
from torch import nn
from torch.nn import functional

from models import half_ops, infer_network, replay
from models.gpu_kernels import gpu_kernels
from models.infer_network import Network, halved
from models.replay import Recorder
from models.settings import ModelSettings
from models.token_ops import places, run_block
from models.universal import build_model

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(("channels", "kernel", "padding"), [(5, 3, 1), (8, 1, 0), (1, 3, 1), (1, 1, 0)])
@pytest.mark.parametrize("biased", [True, False])
def test_convolution_of_any_number_of_channels(channels, kernel, padding, biased):
    conv = nn.Conv3d(channels, 6, kernel, padding=padding, bias=biased)
    x = torch.randn(2, channels, 3, 4, 7)
    found = half_ops.convolve(x, conv.weight, conv.bias, padding)
    assert torch.allclose(found[:, :6], conv(x), atol=1e-5)
    assert found.shape[1] == (8 if kernel == 3 else 6)
    assert not found[:, 6:].any()


@pytest.mark.parametrize(
    ("channels", "given", "read"),
    [(1, 8, 8), (8, 8, 8), (30, 32, 32), (32, 32, 32), (48, 64, 64), (96, 128, 96), (768, 768, 768)],
)
def test_how_wide_maps_are(channels, given, read):
    assert (half_ops.width(channels), half_ops.width(channels, half_ops.READ)) == (given, read)


def test_wide_maps_go_through_a_block():
    first, second = nn.Conv3d(40, 48, 3, padding=1, bias=False), nn.Conv3d(48, 48, 3, padding=1, bias=False)
    mix = nn.Conv3d(40, 48, 1, bias=False)
    x = torch.randn(2, 40, 3, 4, 5)
    inner = functional.leaky_relu(functional.instance_norm(first(x)), 0.01)
    expected = functional.leaky_relu(functional.instance_norm(second(inner)) + functional.instance_norm(mix(x)), 0.01)
    map_ = half_ops.convolve(functional.pad(x, [0] * 6 + [0, 24]), first.weight)
    assert map_.shape[1] == 64
    inner = half_ops.normalise_(map_, None, None, 1e-5, 0.01, channels=48)
    assert inner.shape[1] == 64
    assert not inner[:, 48:].any()
    aside = half_ops.convolve(x, mix.weight, padding=0)
    found = half_ops.normalise_(half_ops.convolve(inner, second.weight), None, None, 1e-5, 0.01, aside, True, 48)
    assert found.shape[1] == 48
    assert torch.allclose(found, expected, atol=1e-4)


def test_multiples_of_one_channel_are_normalised_by_its_own_mean_and_variance():
    x, times, beside = torch.randn(2, 5, 3, 4, 6), torch.tensor([1.0, -2, 0, 1e-3, 30]), torch.randn(2, 1, 3, 4, 6) + 4
    added = functional.instance_norm(beside * times.view(-1, 1, 1, 1), eps=1e-5)
    expected = functional.leaky_relu(functional.instance_norm(x) + added, 0.01)
    parts = torch.cat([beside - 0.25, torch.full_like(beside, 0.25)], dim=1)
    found = half_ops.normalise_(x.clone(), None, None, 1e-5, 0.01, parts, times=times)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0)])
def test_an_input_in_two_halves_keeps_its_digits(kernel, padding):
    conv = nn.Conv3d(1, 6, kernel, padding=padding)
    x = torch.rand(2, 1, 3, 4, 7)
    both = half_ops.in_two(x, torch.bfloat16)
    assert both.dtype == torch.bfloat16
    assert (both.float().sum(1) - x[:, 0]).abs().max() < 2**-16
    assert (both[:, :1].float() - x).abs().max() > 2**-11
    found = half_ops.convolve(both.float(), conv.weight, conv.bias, padding)
    assert torch.allclose(found[:, :6], conv(x), atol=1e-4)


@pytest.mark.parametrize("biased", [True, False])
def test_a_joined_map_is_the_doubled_one_and_the_skip(biased):
    up = nn.ConvTranspose3d(5, 4, 2, 2, bias=biased)
    low, skip = torch.randn(2, 5, 2, 3, 4), torch.randn(2, 3, 4, 6, 8)
    found = half_ops.join(low, up, skip)
    assert torch.allclose(found[:, :7], torch.cat([up(low), skip], dim=1), atol=1e-6)
    assert found.shape[1] == 8
    assert not found[:, 7:].any()


@pytest.mark.parametrize("slope", [None, 0.0, 0.01])
@pytest.mark.parametrize("beside_too", [None, False, True])
def test_normalising_with_what_is_added(slope, beside_too):
    x, beside = torch.randn(2, 5, 3, 4, 6) * 3 + 50, torch.randn(2, 5, 3, 4, 6) - 4
    expected = functional.instance_norm(x, eps=1e-5)
    if beside_too is not None:
        expected = expected + (functional.instance_norm(beside, eps=1e-5) if beside_too else beside)
    if slope is not None:
        expected = functional.leaky_relu(expected, slope)
    given = None if beside_too is None else beside.clone()
    found = half_ops.normalise_(x.clone(), None, None, 1e-5, slope, given, bool(beside_too))
    assert torch.allclose(found, expected, atol=1e-4)


def test_projection_normalises_in_groups():
    norm, last = nn.GroupNorm(4, 16), nn.Conv3d(16, 8, 1)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 16, 3, 4, 5) + torch.arange(16.0).view(
        1, 16, 1, 1, 1
    )  # channels of a group differ in their mean
    assert torch.allclose(half_ops.project(x, norm, last), last(norm(x).relu()).flatten(2), atol=1e-5)


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 2, 2)])
@pytest.mark.parametrize("size", [(7, 8, 10), (4, 7, 9)])
def test_a_block_picks_its_tokens_as_monai_moves_them(size, shift):
    block = SwinTransformerBlock(12, 3, (4, 4, 4), shift).eval()
    block.attn.relative_position_bias_table.normal_()
    window, by = get_window_size(size, (4, 4, 4), shift)
    padded = [-(-n // w) * w for n, w in zip(size, window, strict=True)]
    mask = compute_mask(padded, window, by, "cpu") if any(by) else None
    x = torch.randn(2, *size, 12)
    where = places(size, window, tuple(by), x.device)
    assert torch.allclose(run_block(block, x, where, mask, 64), block(x, mask), atol=1e-5)


@pytest.mark.parametrize(("backbone", "patch"), [("unet", 16), ("swinunetr", 64)])
def test_the_steps_of_half_precision_give_the_same_logits_in_whole_precision(backbone, patch, monkeypatch):
    model = build_model(ModelSettings(backbone=backbone, text_encoder="hashing", patch=(patch,) * 3)).eval()
    x = torch.rand(1, 1, patch, patch, patch)
    expected = model(x)
    monkeypatch.setattr(half_ops, "HALVES", (torch.float32,))
    twin = halved(model, torch.float32)
    assert torch.allclose(twin(x), expected, atol=1e-4)
    both = half_ops.in_two(x, torch.bfloat16).float()
    assert torch.allclose(twin(both), expected, atol=1e-4)
    assert not torch.allclose(twin(both[:, :1]), expected, atol=1e-4)


def test_a_halved_network_comes_near_its_own_logits():
    model = build_model(ModelSettings(backbone="unet", text_encoder="hashing", patch=(16,) * 3)).eval()
    x = torch.rand(1, 1, 16, 16, 16)
    expected, found = model(x), halved(model, torch.bfloat16)(half_ops.in_two(x, torch.bfloat16))
    assert found.dtype == torch.float32
    # bf16 keeps 8 bits; a wrong step would miss by the spread of the logits
    assert (found - expected).abs().mean() < 0.03 * expected.std()
    assert next(model.backbone.parameters()).dtype == torch.float32


def test_a_gpu_sees_more_windows_a_pass_in_copies_of_half_precision(monkeypatch):
    memory = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    models = [
        build_model(ModelSettings(backbone=name, text_encoder="hashing", patch=(16,) * 3)) for name in ("unet", "tiny")
    ]
    unet, tiny = ([model] for model in models)
    assert Network(unet, device="cuda").batch == 18
    assert Network(unet, device="cuda", precision="32-true").batch == 8
    assert [Network(found, device="cuda").batch for found in (tiny, models)] == [8, 8]
    assert Network(unet, device="cuda", batch=3).batch == 3
    assert Network(unet).batch == 2
    memory.total_memory = 11 << 30
    assert [Network(found, device="cuda").batch for found in (unet, tiny)] == [4, 2]


def test_what_cannot_be_recorded_is_run(caplog):
    if torch.cuda.is_available():
        pytest.skip("a GPU can record")
    recorder, calls = Recorder(), []

    def double(x):
        calls.append(len(x))
        return 2 * x

    with caplog.at_level(logging.WARNING):
        found = [recorder.run(double, torch.full((n,), float(n)), "double").sum() for n in (2, 2, 2, 3)]
    assert [float(value) for value in found] == [8, 8, 8, 18]
    assert calls[-1] == 3
    assert len([r for r in caplog.records if "could not be recorded" in r.message]) == 1


class _Summing:
    """Stands for a recording, which takes a GPU: counts how many are made, and replays a sum."""

    made = 0

    def __init__(self, *_):
        type(self).made += 1

    def replay(self, windows):
        return windows.sum()


def test_a_pass_is_recorded_when_it_comes_again(monkeypatch):
    monkeypatch.setattr(replay, "_Recording", _Summing)
    monkeypatch.setattr(_Summing, "made", 0)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    recorder, launched = Recorder(), []

    def launch(x):
        launched.append(len(x))
        return x.sum()

    def run(windows, key="liver"):
        return float(recorder.run(launch, torch.ones(windows), key))

    assert [run(3), run(3), run(3)] == [3, 3, 3]
    assert (launched, _Summing.made) == ([3], 1)
    run(2), run(2)  # another number of windows, and other classes, are other passes
    run(3, "spleen"), run(3, "spleen")
    assert (launched, _Summing.made) == ([3, 2, 3], 3)
    run(4), run(4), run(5), run(5), run(5)  # the fourth is the last that is kept
    assert (launched[3:], _Summing.made) == ([4, 5, 5, 5], 4)
    recorder.clear()
    run(3)
    assert launched[-1] == 3


def test_without_memory_for_a_copy_autocast_is_said_to_go_on(monkeypatch):
    def no_room(model, dtype):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(infer_network, "halved", no_room)
    model = build_model(ModelSettings(backbone="unet", text_encoder="hashing", patch=(16,) * 3))
    said: list[str] = []
    network = infer_network.Network([model])
    network.start(said.append)
    network._halve(torch.bfloat16)
    assert said == ["out of memory on cpu: no room for weights in half precision; slower"]


def test_kernels_that_cannot_be_built_are_named_once(caplog):
    if torch.cuda.is_available():
        pytest.skip("a GPU can build them")
    gpu_kernels.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [gpu_kernels("norm_triton"), gpu_kernels("norm_triton")] == [None, None]
    assert [r.message.split(" (")[0] for r in caplog.records] == ["no GPU kernels of norm_triton"]


@pytest.mark.parametrize("child", ["triton_child", "triton_attention_child", "triton_map_child", "triton_swin_child"])
def test_kernels_in_tritons_interpreter(child):
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed; it comes with the CUDA builds of PyTorch")
    ran = subprocess.run(
        [sys.executable, str(HERE / f"{child}.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
