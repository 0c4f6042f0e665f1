"""The head of classes that were added later: a text head behind a small network of its own on the frozen features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.text_head import TextHead

CHANNELS = 16


class Refinement(nn.Module):
    """Adds to the last features what new classes need: where in the body a voxel lies, and what is around it.

    The last features were shaped for the older classes; a head reads them voxel by voxel and could not tell apart what
    these never had to. Two 3x3x3 convolutions at half resolution see them together with the deepest features. It
    begins as the identity, for its last layer begins at 0.
    """

    def __init__(self, deep: int, last: int) -> None:
        super().__init__()
        self.place = nn.Sequential(nn.GroupNorm(16, deep), nn.Conv3d(deep, CHANNELS, 1, bias=False))
        self.look = nn.Conv3d(last, CHANNELS, 3, padding=1)
        self.mix = nn.Sequential(
            nn.GroupNorm(4, CHANNELS),
            nn.LeakyReLU(0.01),
            nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.GroupNorm(4, CHANNELS),
            nn.LeakyReLU(0.01),
        )
        self.back = nn.Conv3d(CHANNELS, last, 1)
        for weight in self.back.parameters():
            nn.init.zeros_(weight)

    def forward(self, deep: Tensor, last: Tensor) -> Tensor:
        """Return (B, L, X, Y, Z) of features (B, D, x, y, z) and (B, L, X, Y, Z)."""
        half = self.look(functional.avg_pool3d(last, 2))  # (B, 16, X/2, Y/2, Z/2)
        half = half + _resized(self.place(deep), half)  # (B, 16, X/2, Y/2, Z/2)
        return last + _resized(self.back(self.mix(half)), last)  # (B, L, X, Y, Z)


class ExtensionHead(TextHead):
    """A text head for more classes. embeddings: (C, 512), of `names`. deep, last: channels of the two feature maps."""

    def __init__(self, deep: int, last: int, embeddings: NDArray[np.float32] | Tensor, names: Sequence[str]) -> None:
        super().__init__()
        self.add_parts(deep, last, embeddings, names)
        self.refine = Refinement(deep, last)

    def logits(self, deep: Tensor, last: Tensor, rows: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return (B, C, X, Y, Z) of features (B, D, x, y, z), (B, L, X, Y, Z) and text rows (C, 512)."""
        # copied, as in the text head: torch crashes otherwise
        deep = deep.clone(memory_format=torch.contiguous_format)
        return super().logits(deep, self.refine(deep, last.contiguous()), rows, wanted)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    """Return `maps` (B, C, x, y, z), interpolated, on the grid of `like`."""
    return functional.interpolate(maps, size=like.shape[2:], mode="trilinear", align_corners=False)
