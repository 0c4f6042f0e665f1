"""`unet`: the published U-Net (19 M parameters), with its key names."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import volume_gradients
from models.backbone_base import Backbone
from models.volume_gradients import frugal_training, norm_relu, norm_relu_convolve
from models.volume_ops import convolve, convolve_joined, frugal, halve, normalise_


class BatchStatisticsNorm(nn.BatchNorm3d):
    """Batch norm that never uses its running statistics, as the published network.

    In training it is a batch norm. In eval mode each sample is normalised with its own statistics: the authors predict
    one window at a time, so a batch of windows must give what single windows give.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (B, C, X, Y, Z) normalised per channel."""
        if self.training:
            return super().forward(input)
        return functional.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class _Convolution(nn.Module):
    """3x3x3 convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.bn1 = BatchStatisticsNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if frugal(x) and not self.training:
            return self.finish(convolve(x, self.conv1.weight, self.conv1.bias))
        return functional.relu(self.bn1(self.conv1(x)), inplace=True)

    def finish(self, x: Tensor) -> Tensor:
        """Return norm and ReLU of the convolved `x`, written over it."""
        return normalise_(x, self.bn1.weight, self.bn1.bias, self.bn1.eps, slope=0)


class _Step(nn.Module):
    """Two convolutions, `ops`, and what may come before them."""

    ops: nn.Sequential

    @property
    def both(self) -> tuple[_Convolution, _Convolution]:
        """The first and the second convolution."""
        first, second = cast("list[_Convolution]", list(self.ops))
        return first, second

    def trains_frugally(self, x: Tensor) -> bool:
        """Whether maps as large as `x` (B, C, X, Y, Z) are to take the steps of `models.volume_gradients`."""
        several = x[:, 0].numel() > 1  # of a single voxel a batch norm complains
        return frugal_training(x) and several and all(step.bn1.training for step in self.both)

    def finish_training(self, x: Tensor) -> Tensor:
        """Return the step's features of `x`, which is convolved once."""
        first, second = self.both
        return norm_relu(norm_relu_convolve(x, first.bn1, second.conv1), second.bn1)


class _Down(_Step):
    """Two convolutions: to half of the step's width, then to all of it."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.ops = nn.Sequential(_Convolution(inputs, middle), _Convolution(middle, outputs))

    def forward(self, x: Tensor) -> Tensor:
        if self.trains_frugally(x):
            conv = self.both[0].conv1
            return self.finish_training(volume_gradients.convolve(x, conv.weight, conv.bias))
        features: Tensor = self.ops(x)
        return features


class _Up(_Step):
    """Doubles the resolution, puts the skip behind what came up, two convolutions."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(inputs, inputs, 2, 2)
        self.ops = nn.Sequential(_Convolution(inputs + skip, outputs), _Convolution(outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if frugal(x) and not self.training:
            first, second = self.both
            x = convolve_joined(x, self.up_conv, skip, first.conv1.weight, first.conv1.bias)
            features: Tensor = second(first.finish(x))
        elif self.trains_frugally(skip):
            features = self.finish_training(volume_gradients.convolve_joined(x, self.up_conv, skip, self.both[0].conv1))
        else:
            features = self.ops(torch.cat([self.up_conv(x), skip], dim=1))
        return features


def _halve(x: Tensor) -> Tensor:
    return halve(x) if frugal(x) else functional.max_pool3d(x, 2)


class UNetBackbone(Backbone):
    """64-128-256-512 channels, three halvings."""

    deep_channels = 512
    last_channels = 64
    multiple = 8
    halves = True

    def __init__(self) -> None:
        super().__init__()
        self.down_tr64 = _Down(1, 32, 64)
        self.down_tr128 = _Down(64, 64, 128)
        self.down_tr256 = _Down(128, 128, 256)
        self.down_tr512 = _Down(256, 256, 512)
        self.up_tr256 = _Up(512, 256, 256)
        self.up_tr128 = _Up(256, 128, 128)
        self.up_tr64 = _Up(128, 64, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 512, X/8, Y/8, Z/8) and (B, 64, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        self.check_size(x)
        full = self.down_tr64(x)  # (B, 64, X, Y, Z)
        half = self.down_tr128(_halve(full))  # (B, 128, X/2, ...)
        quarter = self.down_tr256(_halve(half))  # (B, 256, X/4, ...)
        deep = self.down_tr512(_halve(quarter))  # (B, 512, X/8, ...)
        x = self.up_tr256(deep, quarter)  # (B, 256, X/4, ...)
        x = self.up_tr128(x, half)  # (B, 128, X/2, ...)
        return deep, self.up_tr64(x, full)
