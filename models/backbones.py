"""Backbones by name; each returns (deepest features, last features).

Adding one: a module with a `Backbone` like `backbone_segresnet.py`, which states its channels and the multiple a patch
must have and forwards to the network, and a line in `BACKBONES`. The contract test walks all of them.
The name is part of a checkpoint's metadata. `swinunetr_v09` has the published patch merging, `swinunetr` MONAI's today.
"""

from __future__ import annotations

from collections.abc import Callable

from datasets_registry.nearest import nearest_text
from models.backbone_base import Backbone
from models.backbone_tiny import TinyBackbone
from models.backbone_unet import UNetBackbone


def _swin() -> Backbone:
    from models.backbone_swin import SwinUnetrBackbone  # MONAI takes seconds to import

    return SwinUnetrBackbone()


def _published_swin() -> Backbone:
    from models.backbone_swin import published_swin_unetr  # MONAI takes seconds to import

    return published_swin_unetr()


def _segresnet() -> Backbone:
    from models.backbone_segresnet import SegResNetBackbone  # MONAI takes seconds to import

    return SegResNetBackbone()


def _unetpp() -> Backbone:
    from models.backbone_unetpp import UNetPlusPlusBackbone  # MONAI takes seconds to import

    return UNetPlusPlusBackbone()


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny": TinyBackbone,
    "unet": UNetBackbone,
    "swinunetr": _swin,
    "swinunetr_v09": _published_swin,
    "segresnet": _segresnet,
    "unetpp": _unetpp,
}


def build_backbone(name: str) -> Backbone:
    """Return a new, randomly initialised backbone; a KeyError lists the nearest and all known names."""
    if name not in BACKBONES:
        raise KeyError(f"unknown backbone {name!r}; {nearest_text(name, BACKBONES)}; known: {', '.join(BACKBONES)}")
    return BACKBONES[name]()
