"""An untrained model small enough to be made, registered and run in a test."""

from __future__ import annotations

from pathlib import Path

import torch

from models.checkpoint import ModelMetadata, save_checkpoint
from models.settings import ModelSettings
from models.text import embed_classes, text_encoder
from models.universal import build_model

MODEL = ModelSettings(classes=("liver", "spleen"), patch=(32, 32, 16), spacing_mm=(12.0, 12.0, 15.0))


def checkpoint(path: Path, model: ModelSettings = MODEL, seed: int = 2) -> Path:
    """Write an untrained model whose first guess is even, so that its masks are neither empty nor full."""
    torch.manual_seed(seed)
    embeddings = embed_classes(text_encoder(model.text_encoder), model.prompt, model.classes)
    network = build_model(model, embeddings)
    with torch.no_grad():
        network.controller.bias[-1] = 0.0
    return save_checkpoint(path, network, ModelMetadata(model, embeddings.encoder, model.prompt, embeddings.digest))
