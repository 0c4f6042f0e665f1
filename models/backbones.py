"""Backbones by name; each returns (deepest features, last features). Adding one: a class and a line in `BACKBONES`.

The name is part of a checkpoint's metadata. `swinunetr_v09` has the published patch merging, `swinunetr` MONAI's today.
"""

from __future__ import annotations

from collections.abc import Callable

from models.backbone_base import Backbone
from models.backbone_tiny import TinyBackbone
from models.backbone_unet import UNetBackbone


def _swin() -> Backbone:
    from models.backbone_swin import SwinUnetrBackbone  # MONAI takes seconds to import

    return SwinUnetrBackbone()


def _published_swin() -> Backbone:
    from models.backbone_swin import published_swin_unetr  # MONAI takes seconds to import

    return published_swin_unetr()


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny": TinyBackbone,
    "unet": UNetBackbone,
    "swinunetr": _swin,
    "swinunetr_v09": _published_swin,
}


def build_backbone(name: str) -> Backbone:
    """Return a new, randomly initialised backbone; a KeyError lists the known names."""
    if name not in BACKBONES:
        raise KeyError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
    return BACKBONES[name]()
