"""How near the classes lie in the text embeddings of an encoder, or of a registered version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from datasets_registry.taxonomy import class_names
from models.checkpoint import read_metadata
from models.text import TextEmbeddings, embed_classes, text_encoder
from tasks.registry import fetch_checkpoint, model_version
from tasks.settings import Settings

NEIGHBOURS = 3


@dataclass(frozen=True, eq=False)
class Similarities:
    """Cosines (C, C) between the rows of `embeddings`; slug: the encoder, or model, in letters fit for a file name."""

    embeddings: TextEmbeddings
    cosines: NDArray[np.float64]
    slug: str

    @property
    def table(self) -> pd.DataFrame:
        """The cosines with class names on both sides."""
        names = list(self.embeddings.names)
        return pd.DataFrame(self.cosines, index=pd.Index(names, name="class_name"), columns=names)

    def neighbours(self, most: int = NEIGHBOURS) -> list[tuple[str, list[tuple[str, float]]]]:
        """Return for each class the `most` nearest others with their cosines, the nearest first."""
        names = self.embeddings.names
        found = []
        for place, name in enumerate(names):
            order = [int(other) for other in np.argsort(-self.cosines[place], kind="stable") if other != place]
            found.append((name, [(names[other], float(self.cosines[place, other])) for other in order[:most]]))
        return found


def class_similarities(settings: Settings, encoder: str, prompt: str, model: str | None = None) -> Similarities:
    """Return the cosines between all classes of the taxonomy under an encoder and prompt, or between those of a model.

    model: a registered version, whose own embeddings are taken; encoder and prompt are then not looked at.
    """
    if model is None:
        made = text_encoder(encoder)
        embeddings = embed_classes(made, prompt, class_names(), settings.workspace.absolute() / "embeddings")
        return Similarities(embeddings, cosines(embeddings.array), _slug(f"{made.id}-{prompt}"))
    version = model_version(model, settings)
    path = fetch_checkpoint(version, settings)
    metadata = read_metadata(path)
    rows = stored_rows(path)
    embeddings = TextEmbeddings(rows, metadata.encoder, metadata.prompt, metadata.model.classes)
    return Similarities(embeddings, cosines(rows), _slug(f"{version.name}-{version.version}"))


def stored_rows(checkpoint: Path) -> NDArray[np.float32]:
    """Return the text embeddings (C, 512) of a checkpoint, its own classes first, then those of each extension."""
    with safe_open(checkpoint, framework="numpy") as stream:
        keys = [key for key in list(stream.keys()) if key.endswith("organ_embedding")]
        keys.sort(key=lambda key: (len(key.split(".")), [int(number) for number in re.findall(r"\d+", key)]))
        return np.concatenate([stream.get_tensor(key) for key in keys]).astype(np.float32)


def cosines(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines (n, n) between rows (n, 512); a row of zeros has cosine 0 with every other."""
    unit = unit_rows(rows)
    found: NDArray[np.float64] = np.clip(unit @ unit.T, -1.0, 1.0)
    return found


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the rows (n, 512) scaled to length 1, zeros as they are."""
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


def plane(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Return places (n, 2) whose distances are as near as a plane allows to those between the unit rows, and shares.

    Classical multidimensional scaling of the cosine distances, which is the principal components of the unit rows.
    shares: the part of the variance that each of the two axes shows. Each axis points to where its largest value is.
    """
    unit = unit_rows(rows)
    left, sizes, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    places = np.zeros((len(rows), 2))
    kept = min(2, len(sizes))
    places[:, :kept] = left[:, :kept] * sizes[:kept]
    largest = np.take_along_axis(places, np.abs(places).argmax(axis=0)[None], axis=0)
    places *= np.where(largest < 0, -1.0, 1.0)  # the sign of a component is arbitrary
    total = float((sizes**2).sum()) or 1.0
    shares = [float(size**2) / total for size in sizes[:2]] + [0.0, 0.0]
    return places, (shares[0], shares[1])


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
