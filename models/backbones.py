"""Backbones by name; each returns (deepest features, last features). Adding one: a class and a line in `BACKBONES`."""

from __future__ import annotations

from collections.abc import Callable

from models.backbone_base import Backbone
from models.backbone_tiny import TinyBackbone

BACKBONES: dict[str, Callable[[], Backbone]] = {"tiny": TinyBackbone}


def build_backbone(name: str) -> Backbone:
    """Return a new, randomly initialised backbone; a KeyError lists the known names."""
    if name not in BACKBONES:
        raise KeyError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
    return BACKBONES[name]()
