"""`tiny`: a small U-Net for CPU demos and tests; most of its work is done at half resolution and below."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.backbone_base import Backbone


class _Unit(nn.Sequential):
    """3x3x3 convolution, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
            nn.InstanceNorm3d(outputs, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )


class _Up(nn.Module):
    """Doubles the resolution, adds the skip, and mixes."""

    def __init__(self, inputs: int, outputs: int, mix: nn.Module) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose3d(inputs, outputs, 2, 2)
        self.mix = mix

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.grow(x) + skip)
        return mixed


class TinyBackbone(Backbone):
    """16-32-64-128-128 channels, four halvings, sums instead of concatenations at the skips."""

    deep_channels = 128
    last_channels = 16
    multiple = 16
    memory_format = torch.channels_last_3d

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(1, 16)
        self.down1 = nn.Sequential(_Unit(16, 32, 2), _Unit(32, 32))
        self.down2 = nn.Sequential(_Unit(32, 64, 2), _Unit(64, 64))
        self.down3 = nn.Sequential(_Unit(64, 128, 2), _Unit(128, 128))
        self.down4 = nn.Sequential(_Unit(128, 128, 2), _Unit(128, 128))
        self.up3 = _Up(128, 128, _Unit(128, 128))
        self.up2 = _Up(128, 64, _Unit(64, 64))
        self.up1 = _Up(64, 32, _Unit(32, 32))
        # the model normalises the last features itself, channel by channel
        self.up0 = _Up(32, 16, nn.Conv3d(16, 16, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 128, X/16, Y/16, Z/16) and (B, 16, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        self.check_size(x)
        full = self.stem(x)  # (B, 16, X, Y, Z)
        half = self.down1(full)  # (B, 32, X/2, ...)
        quarter = self.down2(half)  # (B, 64, X/4, ...)
        eighth = self.down3(quarter)  # (B, 128, X/8, ...)
        deep = self.down4(eighth)  # (B, 128, X/16, ...)
        x = self.up3(deep, eighth)
        x = self.up2(x, quarter)
        x = self.up1(x, half)
        return deep, self.up0(x, full)
