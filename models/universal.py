"""`UniversalModel`: a backbone whose last features are read by one small, text-made network per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets_registry.taxonomy import places_of
from models.backbone_base import Backbone
from models.backbones import build_backbone
from models.extension_head import ExtensionHead
from models.settings import ModelSettings
from models.text import TextEmbeddings, embed_classes, text_encoder
from models.text_head import TextHead


class UniversalModel(TextHead):
    """The CLIP-Driven Universal Model (arXiv 2301.00785), with the published names of its parameters.

    backbone: returns (deepest, last) feature maps. embeddings: (C, 512), one row per output class, never trained.
    names: the C classes. Classes added later (`models.extend`) have a text head of their own in `extensions` and are
    computed apart, so that the older classes' logits stay the same to the last bit.
    """

    def __init__(self, backbone: Backbone, embeddings: NDArray[np.float32] | Tensor, names: Sequence[str]) -> None:
        super().__init__()
        # first, because an optimiser's stored state goes by the order of parameters
        self.backbone = backbone.to(memory_format=backbone.memory_format)  # type: ignore[call-overload]
        self.add_parts(backbone.deep_channels, backbone.last_channels, embeddings, names)
        self.extensions = nn.ModuleList()

    @property
    def heads(self) -> tuple[TextHead, ...]:
        """The text heads: the model's own, then one for each extension."""
        return (self, *(head for head in self.extensions if isinstance(head, TextHead)))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of all classes, in the order of the output channels."""
        return tuple(name for head in self.heads for name in head.names)

    @property
    def learnable(self) -> tuple[str, ...]:
        """The classes whose logits training can change: all, or those of heads that are not frozen."""
        shared = any(weight.requires_grad for weight in self.backbone.parameters())
        return tuple(name for head in self.heads if shared or head.is_learning() for name in head.names)

    def add_extension(self, embeddings: NDArray[np.float32] | Tensor, names: Sequence[str]) -> ExtensionHead:
        """Add a newly initialised head for more classes, `embeddings` (C, 512) of `names`, and return it."""
        head = ExtensionHead(self.backbone.deep_channels, self.backbone.last_channels, embeddings, names)
        self.extensions.append(head.to(self.organ_embedding.device))
        return head

    def train(self, mode: bool = True) -> UniversalModel:
        """Set training or eval mode; parts whose weights are all frozen stay in eval mode, as they will predict."""
        super().train(mode)
        for part in list(self.modules())[1:]:
            weights = list(part.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                part.eval()
        return self

    def forward(
        self,
        x: Tensor,
        classes: Sequence[str] | None = None,
        wanted: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return logits (B, C, X, Y, Z) of images (B, 1, X, Y, Z) scaled to 0-1.

        classes: names of the classes wanted, in the order wanted; None for all. Only these are computed.
        wanted: (B, C) bool, the pairs to compute, in training the annotated ones; others: logit 0, no gradient.
        rows: (R, 512) text embeddings of anything else to look for, by the encoder of `organ_embedding`; the model's
        own head computes them and their R logits come behind those of the classes. Raises KeyError for a class that
        the model does not have, with the nearest ones.
        """
        names = self.classes
        places = list(range(len(names))) if classes is None else places_of(classes, names)
        free = () if rows is None or not len(rows) else (rows,)
        if not places and not free:
            raise ValueError("forward: no class and no text row asked for; name at least one")
        deep, last = self.backbone(x.contiguous(memory_format=self.backbone.memory_format))
        # deep (B, D, x, y, z), last (B, L, X, Y, Z)
        # Rows are picked one by one, for a list of numbers would be sent to a GPU while it waits.
        parts: list[Tensor] = []  # (B, c, X, Y, Z) of each head that has classes asked for
        columns: list[int] = []  # which of the classes asked for each channel of the parts is
        first = 0
        for head in self.heads:
            own = [column for column, place in enumerate(places) if first <= place < first + len(head.names)]
            if own:
                text = torch.stack([head.organ_embedding[places[column] - first] for column in own])
                parts.append(head.logits(deep, last, text, None if wanted is None else wanted[:, own]))
                columns += own
            first += len(head.names)
        if columns != sorted(columns):
            parts = [torch.stack([torch.cat(parts, dim=1)[:, at] for at in np.argsort(columns).tolist()], dim=1)]
        parts += [self.logits(deep, last, text) for text in free]  # (B, R, X, Y, Z)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (B, C + R, X, Y, Z)


def build_model(settings: ModelSettings, embeddings: TextEmbeddings | None = None) -> UniversalModel:
    """Return an untrained model for `settings`; embeddings are computed when none are given."""
    if embeddings is None:
        embeddings = embed_classes(text_encoder(settings.text_encoder), settings.prompt, settings.classes)
    if embeddings.names != settings.classes:
        raise ValueError(f"embeddings are of {embeddings.names}, the model's classes are {settings.classes}")
    return UniversalModel(build_backbone(settings.backbone), embeddings.array, settings.classes)
