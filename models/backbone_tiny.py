"""`tiny`: a small U-Net for CPU demos and tests; all but its last layer works at half resolution and below."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.backbone_base import Backbone


class _Unit(nn.Sequential):
    """3x3x3 convolution, group norm in groups of four channels, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(outputs // 4, outputs),
            nn.LeakyReLU(0.01, inplace=True),
        )


class _Up(nn.Module):
    """Doubles the resolution, adds the skip, and mixes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose3d(inputs, outputs, 2, 2)
        self.mix = _Unit(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.grow(x) + skip)
        return mixed


class TinyBackbone(Backbone):
    """32-64-128-128 channels at 1/2 to 1/16 resolution; sums instead of concatenations at the skips.

    Full resolution sees one linear layer of the image, added to what comes from below: the model's own norm, ReLU and
    per-class layers follow it. A further 3x3x3 convolution there would cost as much as half of the rest.
    """

    deep_channels = 128
    last_channels = 16
    multiple = 16
    memory_format = torch.channels_last_3d

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Conv3d(1, 16, 3, 1, 1, bias=False)
        self.down1 = nn.Sequential(_Unit(1, 32, 2), _Unit(32, 32))
        self.down2 = nn.Sequential(_Unit(32, 64, 2), _Unit(64, 64))
        self.down3 = nn.Sequential(_Unit(64, 128, 2), _Unit(128, 128))
        self.down4 = nn.Sequential(_Unit(128, 128, 2), _Unit(128, 128))
        self.up3 = _Up(128, 128)
        self.up2 = _Up(128, 64)
        self.up1 = _Up(64, 32)
        self.grow = nn.ConvTranspose3d(32, 16, 2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 128, X/16, Y/16, Z/16) and (B, 16, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        self.check_size(x)
        half = self.down1(x)  # (B, 32, X/2, ...)
        quarter = self.down2(half)  # (B, 64, X/4, ...)
        eighth = self.down3(quarter)  # (B, 128, X/8, ...)
        deep = self.down4(eighth)  # (B, 128, X/16, ...)
        low = self.up1(self.up2(self.up3(deep, eighth), quarter), half)  # (B, 32, X/2, ...)
        return deep, self.grow(low) + self.edges(x)  # (B, 16, X, Y, Z)
