"""The networks of the published checkpoints give the published numbers (golden vectors; skipped where absent)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_registry.taxonomy import class_names
from models.backbones import build_backbone
from models.universal import UniversalModel

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "upstream_parity"
VECTORS = Path(os.environ.get("CTFACTORY_UPSTREAM_PARITY", BESIDE))
CASES = [("unet", "unet"), ("swinunetr", "swinunetr_v09")]
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="golden vectors absent (CTFACTORY_UPSTREAM_PARITY)")


def filled(backbone, recorded):
    """A model whose tensors follow the vectors' rule: sorted keys, one generator."""
    model = UniversalModel(build_backbone(backbone), torch.zeros(32, 512), class_names())
    generator = torch.Generator().manual_seed(recorded["seed"])
    state = model.state_dict()
    for key in sorted(state):
        if not state[key].is_floating_point():
            continue
        r = torch.randn(state[key].shape, generator=generator, dtype=torch.float32)
        if key.endswith("running_var"):
            r = 1 + r.abs()
        elif r.dim() > 1:
            r = r / (r.numel() / r.shape[0]) ** 0.5
        else:
            r = (1 + 0.1 * r) if key.endswith("weight") else 0.1 * r
        state[key].copy_(r)
    return model.eval()


@needs_vectors
@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_golden_vectors(name, backbone):
    recorded = json.loads((VECTORS / f"{name}_state_dict.json").read_text())
    golden = np.load(VECTORS / f"{name}.npz")
    model = filled(backbone, recorded)
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
