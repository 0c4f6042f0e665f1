"""`UniversalModel`: a backbone whose last features are read by one small, text-made network per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.backbone_base import Backbone
from models.backbones import build_backbone
from models.head import PARAMETERS, WIDTH, head_logits
from models.settings import ModelSettings
from models.text import TextEmbeddings, embed_classes, text_encoder
from models.volume_ops import frugal, project

FIRST_LOGIT = -3.0
"""Where an untrained class starts: most voxels belong to no class, and unlearning them would cost the first steps."""


class UniversalModel(nn.Module):
    """The CLIP-Driven Universal Model (arXiv 2301.00785), with the published names of its parameters.

    backbone: returns (deepest, last) feature maps. embeddings: (C, 512), one row per output class, never trained.
    """

    organ_embedding: Tensor

    def __init__(self, backbone: Backbone, embeddings: NDArray[np.float32] | Tensor) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=backbone.memory_format)  # type: ignore[call-overload]
        self.register_buffer("organ_embedding", torch.as_tensor(embeddings, dtype=torch.float32).clone())
        self.precls_conv = nn.Sequential(
            nn.GroupNorm(16, backbone.last_channels), nn.ReLU(), nn.Conv3d(backbone.last_channels, WIDTH, 1)
        )
        self.GAP = nn.Sequential(
            nn.GroupNorm(16, backbone.deep_channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Conv3d(backbone.deep_channels, 256, 1),
        )
        self.controller = nn.Conv3d(256 + 256, PARAMETERS, 1)
        last_bias = self.controller.get_parameter("bias")[-1]  # of the head's last layer, for every class
        nn.init.constant_(last_bias, FIRST_LOGIT)
        self.text_to_vision = nn.Linear(self.organ_embedding.shape[1], 256)

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
        if frugal(last):
            norm, reduction = cast(nn.GroupNorm, self.precls_conv[0]), cast(nn.Conv3d, self.precls_conv[2])
            return project(last, norm, reduction)
        features: Tensor = self.precls_conv(last.contiguous())  # (B, 8, X, Y, Z)
        return features.flatten(2)

    def forward(
        self,
        x: Tensor,
        classes: Sequence[int] | None = None,
        wanted: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return logits (B, C, X, Y, Z) of images (B, 1, X, Y, Z) scaled to 0-1.

        classes: the output channels wanted, in the order wanted; None for all. Only these are computed.
        wanted: (B, C) bool, the pairs to compute, in training the annotated ones; others: logit 0, no gradient.
        rows: (R, 512) text embeddings of anything else to look for; their R logits come behind those of the classes.
        """
        text = self.organ_embedding if classes is None else self.organ_embedding[list(classes)]
        text = text if rows is None else torch.cat([text, rows])  # (C + R, 512)
        deep, last = self.backbone(x.contiguous(memory_format=self.backbone.memory_format))
        # deep (B, D, x, y, z), last (B, L, X, Y, Z)
        features = self.voxel_features(last)  # (B, 8, X * Y * Z)
        logits = head_logits(features, self.class_parameters(deep, text), wanted)  # (B, C, X * Y * Z)
        return logits.reshape(*logits.shape[:2], *x.shape[2:])


def build_model(settings: ModelSettings, embeddings: TextEmbeddings | None = None) -> UniversalModel:
    """Return an untrained model for `settings`; embeddings are computed when none are given."""
    if embeddings is None:
        embeddings = embed_classes(text_encoder(settings.text_encoder), settings.prompt, settings.classes)
    if embeddings.names != settings.classes:
        raise ValueError(f"embeddings are of {embeddings.names}, the model's classes are {settings.classes}")
    return UniversalModel(build_backbone(settings.backbone), embeddings.array)
