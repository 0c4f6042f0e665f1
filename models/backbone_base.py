"""What a backbone promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network of images (B, 1, X, Y, Z) that returns (deepest, last) feature maps.

    deepest: (B, deep_channels, x, y, z), what the image half of the controller sees. last: (B, last_channels, X, Y, Z).
    Both widths are multiples of 16 (the model normalises in 16 groups). multiple: X, Y and Z must be divisible by it.
    memory_format: the layout in which its convolutions run fastest. halves: whether it predicts in half precision as it
    is, with `models.half_ops`; others are run under autocast.
    """

    deep_channels: ClassVar[int]
    last_channels: ClassVar[int]
    multiple: ClassVar[int]
    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    halves: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (deepest, last) features of `x` (B, 1, X, Y, Z)."""

    def check_size(self, x: Tensor) -> None:
        """Raise ValueError unless every spatial size of `x` is a multiple this backbone can halve."""
        if any(size % self.multiple for size in x.shape[2:]):
            raise ValueError(
                f"{type(self).__name__}: patch {tuple(x.shape[2:])}, every size must be a multiple of {self.multiple}"
            )
