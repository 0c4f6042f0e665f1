"""`swinunetr`: MONAI's Swin UNETR without its output block, with today's or with the published patch merging."""

from __future__ import annotations

import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import PatchMergingV2
from torch import Tensor, nn
from torch.nn import functional

from models import half_ops
from models.backbone_base import Backbone
from models.half_ops import in_half
from models.volume_ops import convolve, convolve_joined, frugal, normalise_
from models.window_attention import group_windows, hidden_maps

FEATURES = 48
SLOPE = 0.01
"""Of the leaky ReLU in MONAI's residual blocks."""
PARTS = (
    "swinViT",
    "encoder1",
    "encoder2",
    "encoder3",
    "encoder4",
    "encoder10",
    "decoder5",
    "decoder4",
    "decoder3",
    "decoder2",
    "decoder1",
)


class PatchMergingV09(PatchMergingV2):  # type: ignore[misc]
    """The patch merging of MONAI 0.9, under which the published weights were trained.

    Of the eight corners of a 2 x 2 x 2 block it takes two twice and two never. MONAI 1.6 gives another order under the
    same key names and shapes, so those weights would load there without an error and give wrong logits.
    """

    CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, x/2, y/2, z/2, 2 C) of `x` (B, x, y, z, C); odd sizes are padded at their end."""
        _, nx, ny, nz, _ = x.shape
        x = functional.pad(x, (0, 0, 0, nz % 2, 0, ny % 2, 0, nx % 2))
        joined = torch.cat([x[:, i::2, j::2, k::2] for i, j, k in self.CORNERS], dim=-1)  # (B, x/2, y/2, z/2, 8 C)
        merged: Tensor = self.reduction(self.norm(joined))
        return merged


class SwinUnetrBackbone(Backbone):
    """Swin UNETR of feature size 48 (62 M parameters). merging: `merging` of today's MONAI or a class of ours."""

    deep_channels = 16 * FEATURES
    last_channels = FEATURES
    multiple = 32
    halves = True

    swinViT: nn.Module
    encoder1: nn.Module
    encoder2: nn.Module
    encoder3: nn.Module
    encoder4: nn.Module
    encoder10: nn.Module
    decoder5: nn.Module
    decoder4: nn.Module
    decoder3: nn.Module
    decoder2: nn.Module
    decoder1: nn.Module

    def __init__(self, merging: str | type[nn.Module] = "merging") -> None:
        super().__init__()
        network = SwinUNETR(in_channels=1, out_channels=1, feature_size=FEATURES, downsample=merging)
        for part in PARTS:
            setattr(self, part, getattr(network, part))
        group_windows(self.swinViT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 768, X/32, Y/32, Z/32) and (B, 48, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        self.check_size(x)
        hidden = hidden_maps(self.swinViT, x)  # five maps, (B, 48, X/2, ...) to (B, 768, X/32, ...)
        encode, join = (_encode, _join) if frugal(x) and not self.training else (_call, _call)
        deep = encode(self.encoder10, hidden.pop())  # (B, 768, X/32, ...)
        up = join(self.decoder5, deep, hidden.pop())  # (B, 384, X/16, ...)
        up = join(self.decoder4, up, encode(self.encoder4, hidden.pop()))  # (B, 192, X/8, ...)
        up = join(self.decoder3, up, encode(self.encoder3, hidden.pop()))  # (B, 96, X/4, ...)
        up = join(self.decoder2, up, encode(self.encoder2, hidden.pop()))  # (B, 48, X/2, ...)
        return deep, join(self.decoder1, up, encode(self.encoder1, x))


def _call(part: nn.Module, *inputs: Tensor) -> Tensor:
    found: Tensor = part(*inputs)
    return found


def _encode(part: UnetrBasicBlock, x: Tensor) -> Tensor:
    """Return what `part` makes of `x`, in less time and memory; see `models.volume_ops`."""
    block: UnetResBlock = part.layer
    first = convolve(x, block.conv1.conv.weight)
    if not block.downsample:
        return _finish(block, first, x)
    mixing = block.conv3.conv.weight  # (O, C, 1, 1, 1)
    if in_half(x) and mixing.shape[1] == 1:
        return _finish(block, first, x, mixing.flatten())
    return _finish(block, first, convolve(x, mixing, padding=0))


def _join(part: UnetrUpBlock, low: Tensor, skip: Tensor) -> Tensor:
    """Return what `part` makes of `low` and `skip`; see `_encode`."""
    block: UnetResBlock = part.conv_block
    up = part.transp_conv.conv
    if in_half(low):
        joined = half_ops.join(low, up, skip)
        aside = convolve(joined, block.conv3.conv.weight, padding=0)
        return _finish(block, convolve(joined, block.conv1.conv.weight), aside)
    first = convolve_joined(low, up, skip, block.conv1.conv.weight, None)
    aside = convolve_joined(low, up, skip, block.conv3.conv.weight, None, padding=0)
    return _finish(block, first, aside)


def _finish(block: UnetResBlock, first: Tensor, aside: Tensor, times: Tensor | None = None) -> Tensor:
    """Return the rest of a residual block after its first convolution; `aside`: what is added at its end.

    times: see `half_ops.normalise_`.
    """
    eps, weight = block.norm1.eps, block.conv2.conv.weight
    own = len(weight)
    second = convolve(normalise_(first, None, None, eps, SLOPE, channels=own), weight)
    if times is not None:
        return half_ops.normalise_(second, None, None, eps, SLOPE, aside, channels=own, times=times)
    return normalise_(second, None, None, eps, SLOPE, aside, block.downsample, channels=own)


def published_swin_unetr() -> SwinUnetrBackbone:
    """Return the network that the published weights fit, in keys and in numbers."""
    return SwinUnetrBackbone(PatchMergingV09)
