"""Swin stages for prediction: windows attend in groups, so that no score of all windows lies in memory at once.

In half precision on a GPU one kernel does it, and no score lies in memory at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

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

from models.gpu_kernels import gpu_kernels
from models.half_ops import in_half
from models.token_ops import layer_norm, places, run_block

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
        if x.is_cuda:
            attended: Tensor = self.proj(self.attend(self.qkv(x), mask))
            return attended
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, added in self._groups(x, mask):
            result[part] = self.proj(self._attended(self.qkv(x[part]), added))
        return result

    def attend(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B * W, n, C) of `qkv` (B * W, n, 3 C), queries, keys and values of windows; mask: see `forward`."""
        kernels = gpu_kernels("attention_triton") if qkv.is_cuda and in_half(qkv) else None
        if kernels is not None:
            regions = None if mask is None else mask.int()
            found: Tensor = kernels.attend(qkv, self._bias(qkv), regions, self.num_heads, self.scale, FAR)
            return found
        groups = self._groups(qkv, mask)
        return torch.cat([self._attended(qkv[part], added) for part, added in groups])

    def _bias(self, x: Tensor) -> Tensor:
        """Return what is added to the scores of windows `x` (w, n, ...) by where their voxels lie, (H, n, n)."""
        n, heads = x.shape[1], self.num_heads
        index = self.relative_position_index[:n, :n].reshape(-1)
        bias: Tensor = self.relative_position_bias_table[index].view(n, n, heads).permute(2, 0, 1).to(x.dtype)
        return bias

    def _groups(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Yield some windows of `x` (w, n, ...) at a time, and what is added to their scores, see `_added`."""
        windows, bias = len(x), self._bias(x)
        together = max(1, SCORES.get(x.device.type, 1 << 22) // bias.numel())
        if mask is not None:
            together = min(together, len(mask))  # of one sample, so that where all of it fits, it is reckoned once
        added: Tensor | None = None
        for first in range(0, windows, together):
            part = slice(first, min(first + together, windows))
            if added is None or (mask is not None and together < len(mask)):
                own = None if mask is None else mask[torch.arange(part.start, part.stop, device=x.device) % len(mask)]
                added = _added(bias, own)  # (w or 1, H, n, n)
            yield part, added.expand(part.stop - part.start, -1, -1, -1)

    def _attended(self, qkv: Tensor, added: Tensor) -> Tensor:
        """Return (w, n, C) of `qkv` (w, n, 3 C); added: to the scores, (w, H, n, n)."""
        q, k, v = qkv.view(*qkv.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # (w, H, n, d)
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=self.scale)
        return found.transpose(1, 2).flatten(2)


def _added(bias: Tensor, regions: Tensor | None) -> Tensor:
    """Return what is added to scores, (w, H, n, n): `bias` (H, n, n), and `FAR` between voxels of two `regions` (w, n).

    w is 1 without regions. Rows begin at multiples of 16 bytes: PyTorch's fused attention would otherwise copy all
    of it in every call, and one that does not end its rows in single steps it does not take at all.
    """
    heads, n, _ = bias.shape
    windows = 1 if regions is None else len(regions)
    added = bias.new_empty(windows, heads, n, -(-n // 8) * 8)[..., :n]
    if regions is None:
        added.copy_(bias)
    else:
        far = regions[:, None, :, None] != regions[:, None, None, :]  # (w, 1, n, n)
        torch.where(far, bias + FAR, bias, out=added)
    return added


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
    found = [_tokens(transformer, x)]
    for layer in _layers(transformer):
        found.append(run_stage(layer, found[-1].contiguous()))
    return [_normed(each).permute(0, 4, 1, 2, 3) for each in found]


def _normed(x: Tensor) -> Tensor:
    if in_half(x):
        return layer_norm(x.flatten(1, 3)).view_as(x)
    return functional.layer_norm(x, x.shape[-1:])


def _tokens(transformer: SwinTransformer, x: Tensor) -> Tensor:
    """Return the linear embedding (B, X/2, Y/2, Z/2, C) of the 2 x 2 x 2 blocks of `x` (B, 1, X, Y, Z), all even.

    As a matrix product: with one channel a convolution is slow. `x` may come `half_ops.in_two`.
    """
    embedding = transformer.patch_embed.proj
    nx, ny, nz = (size // 2 for size in x.shape[2:])
    parts = x.shape[1]
    blocks = x.reshape(-1, parts, nx, 2, ny, 2, nz, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)  # (B, x, y, z, 1, 2, 2, 2)
    flat = blocks.flatten(4)  # (B, x, y, z, 8)
    return functional.linear(flat, embedding.weight.flatten(1).repeat(1, parts), embedding.bias)


def _layers(transformer: SwinTransformer) -> list[BasicLayer]:
    stages = (transformer.layers1, transformer.layers2, transformer.layers3, transformer.layers4)
    return [stage[0] for stage in stages]


def run_stage(layer: BasicLayer, x: Tensor) -> Tensor:
    """Return (B, x/2, y/2, z/2, 2 C) of `x` (B, x, y, z, C)."""
    size = tuple(x.shape[1:4])
    window, shift = get_window_size(size, layer.window_size, layer.shift_size)
    regions = _regions(size, window, shift, x.device)
    if in_half(x):
        for number, block in enumerate(layer.blocks):
            by = tuple(shift) if number % 2 else (0, 0, 0)  # every second block sees the map rolled
            where = places(size, window, by, x.device)
            x = run_block(block, x, where, regions if any(by) else None, math.prod(window))
    else:
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
