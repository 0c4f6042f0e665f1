"""Windows that attend in groups give what MONAI's attention gives, shifted grid and padding included."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging

import models.window_attention as grouped


@pytest.mark.parametrize("size", [(7, 8, 10), (4, 7, 3)])
def test_grouped_attention_equals_monai(size, monkeypatch):
    torch.manual_seed(0)
    layer = BasicLayer(12, 2, 3, (4, 4, 4), [0.0, 0.0], qkv_bias=True, downsample=PatchMerging).eval()
    x = torch.randn(2, 12, *size)
    with torch.no_grad():
        for block in layer.blocks:
            block.attn.relative_position_bias_table.normal_()
        expected = layer(x)  # (B, 24, x/2, ...)
    state = layer.state_dict()
    grouped.group_layer(layer)
    layer.load_state_dict(state)
    monkeypatch.setattr(grouped, "SCORES", {"cpu": 5 * 3 * 64 * 64})  # five windows at a time
    with torch.inference_mode():
        found = grouped.run_stage(layer, x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
    assert torch.allclose(found, expected, atol=1e-5)
