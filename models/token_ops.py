"""Steps of Swin blocks in half precision, for prediction: tokens into windows and back as rows picked by number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock, window_partition
from torch import Tensor, nn
from torch.nn import functional

from models.gpu_kernels import gpu_kernels


@dataclass(frozen=True, eq=False)
class Places:
    """Where tokens go: `into` (W * n,) int32, the voxel of each token of each window, -1 for what pads the map;
    `back` (V,) int32, the token of each voxel."""

    into: Tensor
    back: Tensor


def places(size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device) -> Places:
    """Return the places of a map of `size` x, y, z, cut into windows after it was rolled back by `shift`."""
    voxels = torch.arange(size[0] * size[1] * size[2], device=device).view(size)
    padding = [pad for n, w in zip(reversed(size), reversed(window), strict=True) for pad in (0, -n % w)]
    padded = functional.pad(voxels, padding, value=-1)
    rolled = torch.roll(padded, [-s for s in shift], dims=(0, 1, 2))
    into = window_partition(rolled[None, ..., None], window).flatten()  # (W * n,)
    back = torch.empty(voxels.numel() + 1, dtype=torch.int64, device=device)
    back[into] = torch.arange(len(into), device=device)  # those of the padding share the last place
    return Places(into.int(), back[:-1].int())


def layer_norm(x: Tensor, norm: nn.LayerNorm | None = None, index: Tensor | None = None) -> Tensor:
    """Return the layer norm (B, M, C) of rows `index` (M,) of tokens `x` (B, N, C), 0 where it is negative.

    norm: its weights; None: neither weights nor bias. index: None for all, in order.
    """
    weight, bias, eps = (None, None, 1e-5) if norm is None else (norm.weight, norm.bias, norm.eps)
    kernels = gpu_kernels("token_triton") if x.is_cuda else None
    if kernels is not None:
        found: Tensor = kernels.norm(x, index, weight, bias, eps)
        return found
    normed = functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
    if index is None:
        return normed
    return torch.cat([normed, torch.zeros_like(normed[:, :1])], dim=1)[:, index.long()]


def add_norm(x: Tensor, y: Tensor, index: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return tokens `x` (B, N, C) + rows `index` (N,) of `y` (B, M, C), and the layer norm of that."""
    kernels = gpu_kernels("token_triton") if x.is_cuda else None
    if kernels is not None:
        found: tuple[Tensor, Tensor] = kernels.add_norm(x, y, index, norm.weight, norm.bias, norm.eps)
        return found
    total = x + y[:, index.long()]
    return total, functional.layer_norm(total, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def run_block(block: SwinTransformerBlock, x: Tensor, where: Places, regions: Tensor | None, tokens: int) -> Tensor:
    """Return what `block` makes of a map `x` (B, x, y, z, C). tokens: of a window. regions: as its attention takes."""
    flat = x.flatten(1, 3)  # (B, V, C)
    attn, mlp = block.attn, block.mlp
    kernels = gpu_kernels("swin_triton") if x.is_cuda else None
    if kernels is not None and x.shape[-1] <= kernels.MOST_CHANNELS:
        qkv = kernels.before(flat, where.into, block.norm1, attn.qkv)  # (B, W * n, 3 C)
        attended = attn.attend(qkv.view(-1, tokens, qkv.shape[-1]), regions).view(len(x), -1, x.shape[-1])
        layers = (attn.proj, block.norm2, mlp.linear1, mlp.linear2)
        found: Tensor = kernels.after(flat, attended, where.back, *layers)
        return found.view_as(x)
    windows = layer_norm(flat, block.norm1, where.into).view(-1, tokens, x.shape[-1])  # (B * W, n, C)
    attended = attn(windows, regions).view(len(x), -1, x.shape[-1])  # (B, W * n, C)
    total, normed = add_norm(flat, attended, where.back, block.norm2)
    added: Tensor = total + mlp(normed)
    return added.view_as(x)
