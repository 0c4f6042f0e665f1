"""Swin stages for prediction: windows attend in groups, so that no score of all windows lies in memory at once."""

from __future__ import annotations

import torch
from monai.networks.nets.swin_unetr import (
    BasicLayer,
    SwinTransformer,
    WindowAttention,
    get_window_size,
    window_partition,
)
from torch import Tensor
from torch.nn import functional

SCORES = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Attention scores in memory at once; a 96^3 patch has 121 million in its first stage."""
FAR = -100.0
"""Added to the score of two voxels that only the roll of the window grid made neighbours, as MONAI does."""


class GroupedAttention(WindowAttention):  # type: ignore[misc]
    """MONAI's window attention, with its keys and numbers; without gradients it takes some windows at a time."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B * W, n, C) of windows `x` (B * W, n, C).

        mask: without gradients (W, n), the region each voxel of a window lies in: only those of one region attend to
        each other; None: all do. With gradients MONAI's additive mask (W, n, n).
        """
        if torch.is_grad_enabled():
            plain: Tensor = super().forward(x, mask)
            return plain
        windows, n, channels = x.shape
        heads = self.num_heads
        index = self.relative_position_index[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].view(1, n, n, heads).permute(0, 3, 1, 2)  # (1, H, n, n)
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        together = max(1, SCORES.get(x.device.type, 1 << 22) // (heads * n * n))
        for first in range(0, windows, together):
            part = slice(first, min(first + together, windows))
            q, k, v = self.qkv(x[part]).view(-1, n, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)  # (w, H, n, d)
            scores = bias
            if mask is not None:
                own = mask[torch.arange(part.start, part.stop, device=mask.device) % len(mask)]  # (w, n)
                far = (own[:, None, :, None] != own[:, None, None, :]).to(bias.dtype)  # (w, 1, n, n)
                scores = bias + FAR * far  # (w, H, n, n)
            attended = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=scores.to(q.dtype).expand(len(q), -1, -1, -1), scale=self.scale
            )
            result[part] = self.proj(attended.transpose(1, 2).reshape(-1, n, channels))
        return result


def group_windows(transformer: SwinTransformer) -> None:
    """Give every block of `transformer` an attention that can take some windows at a time."""
    for layer in _layers(transformer):
        group_layer(layer)


def group_layer(layer: BasicLayer) -> None:
    """Do so for one stage; the weights are new."""
    for block in layer.blocks:
        old = block.attn
        block.attn = GroupedAttention(old.dim, old.num_heads, old.window_size, qkv_bias=old.qkv.bias is not None)


def hidden_maps(transformer: SwinTransformer, x: Tensor) -> list[Tensor]:
    """Return the five maps of `transformer` for `x` (B, 1, X, Y, Z): (B, 48, X/2, ...) to (B, 768, X/32, ...)."""
    if torch.is_grad_enabled() or transformer.training:
        maps: list[Tensor] = transformer(x, True)
        return maps
    tokens = transformer.patch_embed(x).permute(0, 2, 3, 4, 1)  # (B, x, y, z, C)
    found = [tokens]
    for layer in _layers(transformer):
        found.append(run_stage(layer, found[-1].contiguous()))
    return [functional.layer_norm(each, each.shape[-1:]).permute(0, 4, 1, 2, 3) for each in found]


def _layers(transformer: SwinTransformer) -> list[BasicLayer]:
    stages = (transformer.layers1, transformer.layers2, transformer.layers3, transformer.layers4)
    return [stage[0] for stage in stages]


def run_stage(layer: BasicLayer, x: Tensor) -> Tensor:
    """Return (B, x/2, y/2, z/2, 2 C) of `x` (B, x, y, z, C)."""
    size = tuple(x.shape[1:4])
    window, shift = get_window_size(size, layer.window_size, layer.shift_size)
    regions = _regions(size, window, shift, x.device)
    for block in layer.blocks:
        x = block(x, regions)
    merged: Tensor = layer.downsample(x)
    return merged


def _regions(size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device) -> Tensor:
    """Return (W, n): for each voxel of each window of the rolled grid, which of 27 regions of the map it is from."""
    number = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
    for axis, (length, w, s) in enumerate(zip(size, window, shift, strict=True)):
        padded = -(-length // w) * w
        at = torch.arange(padded, device=device)
        part = (at >= padded - w).long() + (at >= padded - s).long()
        if s == 0:
            part = torch.zeros_like(part)
        shape = [1, 1, 1]
        shape[axis] = padded
        number = 3 * number + part.view(shape)
    regions: Tensor = window_partition(number[None, ..., None], window)[..., 0]
    return regions
