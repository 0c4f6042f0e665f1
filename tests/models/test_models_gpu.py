"""What a GPU does otherwise than a CPU: the same masks, passes replayed, and no wait of the host in between."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from imaging.bits import get_channel
from models.half_ops import in_two
from models.infer import Predictor
from models.infer_bits import threshold
from models.infer_network import Query, halved
from models.infer_scan import ArrayScan
from models.infer_scores import Tally
from models.replay import Recorder
from models.scores import SurfaceEntropy
from models.settings import ModelSettings
from models.universal import build_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

CLASSES = ("liver", "aorta", "spleen", "pancreas")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def model_and_settings(backbone, patch):
    chosen = ModelSettings(classes=CLASSES, backbone=backbone, text_encoder="hashing", patch=(patch,) * 3)
    model = build_model(chosen).eval()
    model.controller.bias[-1] = 0.0  # both signs of logits
    return model, chosen


def scan(shape):
    return ArrayScan(np.asfortranarray(np.random.default_rng(3).integers(-200, 300, shape).astype(np.int16)))


@pytest.mark.parametrize(("half", "error"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
@pytest.mark.parametrize("backbone", ["unet", "swinunetr"])
def test_launched_and_replayed_passes_are_the_same(backbone, half, error):
    model = build_model(ModelSettings(backbone=backbone, text_encoder="hashing", patch=(64,) * 3)).eval().cuda()
    first, second = torch.rand(2, 2, 1, 64, 64, 64, device="cuda")
    twin, recorder = halved(model, half), Recorder()
    for x in (first, first, second, first):
        found, expected = recorder.run(twin, in_two(x, half), "pass"), model(x)
        assert torch.equal(found, twin(in_two(x, half)))
        assert (found - expected).abs().mean() < error * expected.std()


@pytest.mark.parametrize("shape", [(70, 50, 41), (33, 80, 64)])
def test_masks_and_scores_are_those_of_the_cpu(shape):
    model, chosen = model_and_settings("tiny", 32)
    expected = Predictor(model, chosen).predict(scan(shape))
    found = Predictor(model, chosen, device="cuda", precision="32-true").predict(scan(shape))
    for channel in chosen.channels:
        ours, theirs = get_channel(found.bits, channel), get_channel(expected.bits, channel)
        assert (ours != theirs).mean() < 1e-3  # convolutions round to TF32
    for name in CLASSES:
        assert found.mean_prob[name] == pytest.approx(expected.mean_prob[name], abs=1e-3, nan_ok=True)
        doubts = (found.scores.boundary_entropy[name], expected.scores.boundary_entropy[name])
        assert doubts[0] == pytest.approx(doubts[1], abs=1e-3, nan_ok=True)


def test_the_host_waits_for_nothing_while_slabs_go_by():
    model, chosen = model_and_settings("unet", 64)
    predictor = Predictor(model, chosen, device="cuda", batch=3)
    predictor.predict(scan((100, 90, 200)))  # builds and records what there is
    tally = Tally(dict(zip(CLASSES, chosen.channels, strict=True)), 1, 2)
    slabs = predictor.slabs(scan((100, 90, 200)), Query(CLASSES))
    first = next(slabs)  # sets up the weights
    torch.cuda.set_sync_debug_mode("error")
    try:
        for slab in itertools.chain([first], slabs):  # each is valid until the next one
            tally.add(slab.logits)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert any(value > 0 for value in tally.scores([None] * len(CLASSES), (), "16-mixed").mean_prob.values())


def test_where_float16_overflows_the_scan_is_predicted_again_in_bfloat16():
    model, chosen = model_and_settings("unet", 32)
    expected = Predictor(model, chosen, device="cuda").predict(scan((40, 33, 70)))
    quiet = Predictor(model, chosen, device="cuda", precision="16-mixed").predict(scan((40, 33, 70)))
    assert quiet.scores.remarks == ()
    next(p for p in model.backbone.parameters() if p.dim() == 5).data *= 1e6
    loud = Predictor(model, chosen, device="cuda", precision="16-mixed")
    for _ in range(2):
        found = loud.predict(scan((40, 33, 70)))
        assert "predicted again in bf16-mixed" in found.scores.remarks[0]
    assert (found.bits != expected.bits).mean() < 0.05  # the norm behind that layer takes the factor away


@pytest.mark.parametrize("shape", [(300, 300, 48), (37, 50, 61)])
def test_kernels_of_slabs_give_the_numbers_of_the_cpu(shape):
    from models import slab_triton  # Triton is where GPUs are

    logits = torch.randn(6, *shape) * 20
    channels = (33, 31, 0, 5, 63, 32)
    words, sums, counts = threshold(logits, channels, 2)
    found = slab_triton.threshold(logits.cuda(), channels, 2)
    assert torch.equal(found[0].cpu(), words)
    assert torch.allclose(found[1].cpu(), sums, rtol=1e-5)
    assert torch.equal(found[2].cpu(), counts)
    cpu, gpu = SurfaceEntropy(channels, 2), SurfaceEntropy(channels, 2)
    cpu.add(logits, words)
    gpu.add(logits.cuda(), words.cuda())
    assert gpu.means() == pytest.approx(cpu.means(), rel=1e-5)
