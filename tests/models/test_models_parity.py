"""The networks of the published checkpoints give the published numbers (golden vectors; skipped where absent)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_vectors import VECTORS, filled, needs_vectors

from models.backbones import build_backbone
from models.settings import ModelSettings
from models.universal import build_model

CASES = [("unet", "unet"), ("swinunetr", "swinunetr_v09")]


@needs_vectors
@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_golden_vectors(name, backbone):
    recorded = json.loads((VECTORS / f"{name}_state_dict.json").read_text())
    golden = np.load(VECTORS / f"{name}.npz")
    model = build_model(ModelSettings(backbone)).eval()
    model.load_state_dict(filled(model.state_dict(), recorded["seed"]))
    found = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in model.state_dict().items()
    }
    assert found == recorded["tensors"]
    x = torch.rand((1, 1, 64, 64, 64), generator=torch.Generator().manual_seed(recorded["seed"] + 1))
    at = tuple(golden["voxels"].astype(int).T)
    with torch.inference_mode():
        deep, last = model.backbone(x)
        logits = model(x)[0].numpy()
    assert np.abs(deep.mean((0, 2, 3, 4)).numpy() - golden["deep"]).max() <= 1e-4
    assert np.abs(last[0, :8].numpy()[(slice(None), *at)].T - golden["features"]).max() <= 1e-4
    assert np.abs(logits[(slice(None), *at)].T - golden["logits"]).max() <= 1e-4
    assert np.abs(logits.mean((1, 2, 3)) - golden["logits_mean"]).max() <= 1e-4
    assert np.abs(logits.std((1, 2, 3)) - golden["logits_std"]).max() <= 1e-4


def test_published_unet_predicts_windows_independently_of_their_batch():
    torch.manual_seed(0)
    backbone = build_backbone("unet").eval()
    x = torch.rand(2, 1, 16, 16, 16)
    together, alone = backbone(x), backbone(x[1:])
    assert all(torch.allclose(a[1], b[0], atol=1e-4) for a, b in zip(together, alone, strict=True))


def test_published_merging_takes_two_corners_twice():
    from models.backbone_swin import PatchMergingV09

    merging = PatchMergingV09(1)
    merging.norm = merging.reduction = torch.nn.Identity()
    block = torch.arange(8.0).reshape(1, 2, 2, 2, 1)  # value = 4 x + 2 y + z
    assert merging(block).flatten().tolist() == [0, 4, 2, 1, 5, 2, 1, 7]
