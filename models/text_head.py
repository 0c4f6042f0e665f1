"""The text-driven part of the network: from features and one text row per class to logits. A model has one or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.half_ops import in_half
from models.head import PARAMETERS, WIDTH, head_logits
from models.volume_gradients import frugal_training, project_training
from models.volume_ops import frugal, project

FIRST_LOGIT = -3.0
"""Where an untrained class starts: most voxels belong to no class, and unlearning them would cost the first steps."""


class TextHead(nn.Module):
    """Text rows, and the layers that turn them and the image into a small network per class (published names).

    names: the classes of the rows of `organ_embedding` (C, 512), which are never trained.
    """

    organ_embedding: Tensor
    names: tuple[str, ...]

    def add_parts(self, deep: int, last: int, embeddings: NDArray[np.float32] | Tensor, names: Sequence[str]) -> None:
        """Make the layers for features of `deep` and `last` channels; ValueError unless each row has one name."""
        if len(embeddings) != len(names) or len(set(names)) != len(names):
            raise ValueError(
                f"{len(embeddings)} text rows for the classes {', '.join(names)}; expected one row a class"
            )
        self.names = tuple(names)
        self.register_buffer("organ_embedding", torch.as_tensor(embeddings, dtype=torch.float32).clone())
        self.precls_conv = nn.Sequential(nn.GroupNorm(16, last), nn.ReLU(), nn.Conv3d(last, WIDTH, 1))
        self.GAP = nn.Sequential(nn.GroupNorm(16, deep), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Conv3d(deep, 256, 1))
        self.controller = nn.Conv3d(256 + 256, PARAMETERS, 1)
        last_bias = self.controller.get_parameter("bias")[-1]  # of the head's last layer, for every class
        nn.init.constant_(last_bias, FIRST_LOGIT)
        self.text_to_vision = nn.Linear(self.organ_embedding.shape[1], 256)

    def is_learning(self) -> bool:
        """Whether any of the layers is not frozen."""
        layers = (self.precls_conv, self.GAP, self.controller, self.text_to_vision)
        return any(weight.requires_grad for layer in layers for weight in layer.parameters())

    def class_parameters(self, deep: Tensor, rows: Tensor) -> Tensor:
        """Return the head's weights (B, C, 153) from deepest features (B, D, x, y, z) and text rows (C, 512)."""
        image = self.GAP(deep).flatten(1)  # (B, 256)
        text = self.text_to_vision(rows).relu()  # (C, 256)
        joined = torch.cat(
            [
                image.unsqueeze(1).expand(-1, len(text), -1),  # (B, C, 256)
                text.unsqueeze(0).expand(len(image), -1, -1).to(image.dtype),
            ],
            dim=2,
        )  # (B, C, 512)
        weight = self.controller.weight.flatten(1)  # (153, 512), a 1x1x1 convolution as a matrix
        return nn.functional.linear(joined, weight, self.controller.bias)

    def voxel_features(self, last: Tensor) -> Tensor:
        """Return what the head reads, (B, 8, X * Y * Z), from the last features (B, L, X, Y, Z)."""
        if frugal(last) or frugal_training(last):
            norm, reduction = cast("nn.GroupNorm", self.precls_conv[0]), cast("nn.Conv3d", self.precls_conv[2])
            return (project if frugal(last) else project_training)(last, norm, reduction)
        features: Tensor = self.precls_conv(last.contiguous())  # (B, 8, X, Y, Z)
        return features.flatten(2)

    def logits(self, deep: Tensor, last: Tensor, rows: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return (B, C, X, Y, Z) of features (B, D, x, y, z), (B, L, X, Y, Z) and text rows (C, 512).

        wanted: (B, C) bool, the pairs to compute; None for all.
        """
        # A copy: torch 2.13 crashes in the backward pass of a group norm on channels-last features that need no
        # gradient, as a frozen backbone's; of a single voxel `contiguous` would keep the layout.
        deep = deep.clone(memory_format=torch.contiguous_format)
        if in_half(deep):
            deep = deep.float()  # few numbers, which decide on every voxel
        features = self.voxel_features(last)  # (B, 8, X * Y * Z)
        logits = head_logits(features, self.class_parameters(deep, rows), wanted)  # (B, C, X * Y * Z)
        return logits.reshape(*logits.shape[:2], *last.shape[2:])
