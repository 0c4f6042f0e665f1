"""Published checkpoints, once imported, give the published numbers (golden vectors; skipped where absent)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_vectors import VECTORS, authors_file, filled, needs_vectors

from models.backbones import build_backbone
from models.checkpoint import load_model
from models.settings import ModelSettings
from models.universal import build_model
from tasks.import_model import import_model
from tasks.registry import fetch_checkpoint
from tasks.settings import Settings

CASES = [("unet", "unet"), ("swinunetr", "swinunetr_v09")]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(workspace=tmp_path_factory.mktemp("parity"))


@needs_vectors
@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_an_imported_checkpoint_gives_the_golden_vectors(name, backbone, settings, tmp_path):
    recorded = json.loads((VECTORS / f"{name}_state_dict.json").read_text())
    golden = np.load(VECTORS / f"{name}.npz")
    state = build_model(ModelSettings(backbone)).state_dict()
    found = {key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in state.items()}
    assert found == recorded["tensors"]
    state = filled(state, recorded["seed"])
    version = import_model(str(authors_file(tmp_path / f"{name}.pth", state)), name, settings).model
    model, metadata = load_model(fetch_checkpoint(version, settings))
    assert metadata.model.backbone == backbone
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
