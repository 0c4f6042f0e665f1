"""What a backbone promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.settings import Precision


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

    def check_training(self, patch: Sequence[int], device: torch.device, precision: Precision) -> None:
        """Raise ValueError where PyTorch would train on patches (X, Y, Z) with wrong gradients.

        On a CPU, PyTorch 2.13 (oneDNN) reads memory that nobody wrote for the weights of a 3x3x3 convolution in
        bfloat16 whose map is two voxels long along X: garbage, now and then NaN. float16 and other lengths are right.
        """
        shortest = patch[0] // self.multiple  # of the deepest map; each above it is twice as long
        if device.type == "cpu" and precision == "bf16-mixed" and shortest in (1, 2):
            raise ValueError(
                f"train.precision: bf16-mixed on a CPU with patches of {patch[0]} voxels along X, of which a map of "
                f"{type(self).__name__} is 2 long: PyTorch's gradients are wrong there; expected 32-true, or at least "
                f"{3 * self.multiple} voxels along X"
            )
