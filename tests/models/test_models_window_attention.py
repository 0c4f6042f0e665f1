"""Windows that attend in groups give what MONAI's attention gives, shifted grid and padding included."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging, SwinTransformer

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


@pytest.mark.parametrize("parts", [1, 2])
def test_blocks_of_voxels_are_embedded_as_monais_convolution_does(parts):
    torch.manual_seed(0)
    transformer = SwinTransformer(
        in_chans=1, embed_dim=12, window_size=(7, 7, 7), patch_size=(2, 2, 2), depths=(2, 2, 2, 2),
        num_heads=(3, 3, 3, 3), spatial_dims=3,
    ).eval()  # fmt: skip
    x = torch.randn(2, 1, 32, 32, 64)
    with torch.inference_mode():
        expected = transformer(x, normalize=True)
        state = transformer.state_dict()
        grouped.group_windows(transformer)
        transformer.load_state_dict(state)
        shares = x if parts == 1 else torch.cat([x - 1, torch.ones_like(x)], dim=1)  # whose sum is x
        found = grouped.hidden_maps(transformer, shares)
    assert [tuple(own.shape) for own in found] == [tuple(own.shape) for own in expected]
    assert all(torch.allclose(own, other, atol=1e-4) for own, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("regions", [None, 4])
def test_attending_to_given_queries_keys_and_values_is_what_windows_do(regions, monkeypatch):
    torch.manual_seed(0)
    attention = grouped.GroupedAttention(12, 3, (2, 3, 3), qkv_bias=True).eval()
    windows = torch.randn(8, 18, 12)
    mask = None if regions is None else torch.randint(0, 2, (regions, 18))
    monkeypatch.setattr(grouped, "SCORES", {"cpu": 3 * 3 * 18 * 18})  # three windows at a time
    with torch.inference_mode():
        attention.relative_position_bias_table.normal_()
        expected = attention(windows, mask)
        found = attention.proj(attention.attend(attention.qkv(windows), mask))
    assert torch.allclose(found, expected, atol=1e-6)
