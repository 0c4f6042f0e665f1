"""The published network written the way its authors run it: what our speed and memory are measured against.

Joined maps at the skips, batch norm by batch statistics, one copy of the feature map per class and grouped 1x1x1
convolutions in the head. Parameters have the published names, so our weights load.
"""

from __future__ import annotations

import torch
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn
from torch.nn import functional

from models.backbone_swin import PatchMergingV09

CLASSES, WIDTH = 32, 8
SIZES = [WIDTH * WIDTH, WIDTH * WIDTH, WIDTH, WIDTH, WIDTH, 1]
FEATURES = 48


def grouped_convolutions(features: Tensor, parameters: Tensor) -> Tensor:
    """The head: the feature map once per class, then three 1x1x1 convolutions with one group a class.

    features: (1, 8, X, Y, Z). parameters: (C, 153): weights 8x8, 8x8, 1x8, then biases 8, 8, 1.
    Returns (1, C, X, Y, Z).
    """
    classes = len(parameters)
    w1, w2, w3, b1, b2, b3 = torch.split(parameters, SIZES, dim=1)
    copies = features.repeat(1, classes, 1, 1, 1)  # (1, C * 8, X, Y, Z)
    first = functional.conv3d(copies, w1.reshape(-1, WIDTH, 1, 1, 1), b1.flatten(), groups=classes).relu()
    second = functional.conv3d(first, w2.reshape(-1, WIDTH, 1, 1, 1), b2.flatten(), groups=classes).relu()
    return functional.conv3d(second, w3.reshape(-1, WIDTH, 1, 1, 1), b3.flatten(), groups=classes)


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.bn1 = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = functional.batch_norm(x, None, None, self.bn1.weight, self.bn1.bias, training=True)
        return functional.relu(x)


class _Step(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int, up: int = 0) -> None:
        super().__init__()
        if up:
            self.up_conv = nn.ConvTranspose3d(up, up, 2, 2)
        self.ops = nn.Sequential(_Convolution(inputs, middle), _Convolution(middle, outputs))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        features: Tensor = self.ops(x if skip is None else torch.cat([self.up_conv(x), skip], dim=1))
        return features


class ReferenceUNet(nn.Module):
    """The published U-Net."""

    deep_channels, last_channels = 512, 64

    def __init__(self) -> None:
        super().__init__()
        self.down_tr64 = _Step(1, 32, 64)
        self.down_tr128 = _Step(64, 64, 128)
        self.down_tr256 = _Step(128, 128, 256)
        self.down_tr512 = _Step(256, 256, 512)
        self.up_tr256 = _Step(512 + 256, 256, 256, up=512)
        self.up_tr128 = _Step(256 + 128, 128, 128, up=256)
        self.up_tr64 = _Step(128 + 64, 64, 64, up=128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 512, X/8, ...) and (B, 64, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        full = self.down_tr64(x)  # (B, 64, X, Y, Z)
        half = self.down_tr128(functional.max_pool3d(full, 2))  # (B, 128, X/2, ...)
        quarter = self.down_tr256(functional.max_pool3d(half, 2))  # (B, 256, X/4, ...)
        deep = self.down_tr512(functional.max_pool3d(quarter, 2))  # (B, 512, X/8, ...)
        return deep, self.up_tr64(self.up_tr128(self.up_tr256(deep, quarter), half), full)


class ReferenceSwin(nn.Module):
    """MONAI's Swin UNETR, called part by part as the authors do."""

    deep_channels, last_channels = 16 * FEATURES, FEATURES

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

    def __init__(self, merging: str | type[nn.Module]) -> None:
        super().__init__()
        network = SwinUNETR(in_channels=1, out_channels=1, feature_size=FEATURES, downsample=merging)
        for name, part in network.named_children():
            if name != "out":
                setattr(self, name, part)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 768, X/32, ...) and (B, 48, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        hidden = self.swinViT(x)
        encoders = (self.encoder2, self.encoder3, self.encoder4)
        skips = [self.encoder1(x), *(encoder(part) for encoder, part in zip(encoders, hidden, strict=False)), hidden[3]]
        deep = up = self.encoder10(hidden[4])
        for decoder in (self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1):
            up = decoder(up, skips.pop())
        return deep, up


class ReferenceModel(nn.Module):
    """The published model. backbone: `unet`, `swinunetr_v09`, or `swinunetr` with today's patch merging."""

    organ_embedding: Tensor

    def __init__(self, backbone: str) -> None:
        super().__init__()
        merging = PatchMergingV09 if backbone == "swinunetr_v09" else "merging"
        self.backbone = ReferenceUNet() if backbone == "unet" else ReferenceSwin(merging)
        deep, last = self.backbone.deep_channels, self.backbone.last_channels
        self.register_buffer("organ_embedding", torch.zeros(CLASSES, 512))
        self.precls_conv = nn.Sequential(nn.GroupNorm(16, last), nn.ReLU(), nn.Conv3d(last, WIDTH, 1))
        self.GAP = nn.Sequential(nn.GroupNorm(16, deep), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Conv3d(deep, 256, 1))
        self.controller = nn.Conv3d(512, sum(SIZES), 1)
        self.text_to_vision = nn.Linear(512, 256)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 32, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        deep, last = self.backbone(x)
        text = self.text_to_vision(self.organ_embedding).relu()[..., None, None, None]  # (C, 256, 1, 1, 1)
        image = self.GAP(deep)  # (B, 256, 1, 1, 1)
        logits = []
        for b in range(len(x)):
            joined = torch.cat([image[b : b + 1].repeat(CLASSES, 1, 1, 1, 1), text], dim=1)  # (C, 512, 1, 1, 1)
            parameters = self.controller(joined).flatten(1)  # (C, 153)
            logits.append(grouped_convolutions(self.precls_conv(last[b : b + 1]), parameters))
        return torch.cat(logits)
