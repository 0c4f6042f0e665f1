"""What an evaluation has worked out already, kept per case: a killed one goes on, a second one need not begin.

A key holds everything that shapes a result, the digest of the weights first, so nothing is used across weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_registry.taxonomy import all_classes
from imaging.bits import Bits
from tasks.settings import Settings

VERSION = 1
"""Part of every key: raise it when figures, masks or columns change for the same inputs."""

PREDICTION_SETTINGS = ("window_overlap", "predict_precision", "device", "cleaning")
SCORE_SETTINGS = ("nsd_tolerance_mm", "lesion_min_ml")


@dataclass(frozen=True)
class Cost:
    """What one prediction took: windows the network saw and seconds; peak_gb: see `PredictionProgress`."""

    seconds: float
    windows: int
    peak_gb: float
    device: str


@dataclass(frozen=True, eq=False)
class Masks:
    """Cleaned masks of a case on the lake grid, with the mean probability of each class and what they took."""

    bits: Bits
    mean_prob: dict[str, float]
    cost: Cost


def prediction_key(weights: str, case: Mapping[str, Any], settings: Settings) -> str:
    """Return the key of the masks of a `cases` row by the weights of that digest."""
    return _digest(
        {
            "version": VERSION,
            "weights": weights,
            "case": case["case_id"],
            "ingest_key": case["ingest_key"],
            "classes": repr(all_classes()),  # with the rules that masks are cleaned by
            **{name: getattr(settings, name) for name in PREDICTION_SETTINGS},
        }
    )


def score_key(masks: str, annotations: Mapping[str, str], tumour_free: list[str], settings: Settings) -> str:
    """Return the key of the scores of masks; annotations: class name -> manifest of its annotation."""
    return _digest(
        {
            "masks": masks,
            "annotations": dict(sorted(annotations.items())),
            "tumour_free": sorted(tumour_free),
            **{name: getattr(settings, name) for name in SCORE_SETTINGS},
        }
    )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


class EvaluationStore:
    """The folder WORKSPACE/evaluations/cases; files are written aside and moved into place, and torn ones ignored."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.workspace.absolute() / "evaluations" / "cases"

    def masks(self, key: str) -> Masks | None:
        """Return the masks kept under `key`, None where there are none."""
        try:
            with np.load(self.folder / f"{key}.npz", allow_pickle=False) as kept:
                about = json.loads(str(kept["about"]))
                return Masks(kept["bits"], about["mean_prob"], Cost(**about["cost"]))
        except (FileNotFoundError, zipfile.BadZipFile, ValueError, KeyError, EOFError):
            return None

    def keep_masks(self, key: str, masks: Masks) -> None:
        """Keep masks under `key`."""
        about = json.dumps({"mean_prob": masks.mean_prob, "cost": asdict(masks.cost)})
        aside = self._aside(f"{key}.npz")
        with aside.open("wb") as stream:
            np.savez_compressed(stream, bits=masks.bits, about=np.array(about))
        aside.replace(self.folder / f"{key}.npz")

    def scores(self, key: str) -> dict[str, Any] | None:
        """Return the scores kept under `key`, None where there are none."""
        try:
            kept: dict[str, Any] = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return kept

    def keep_scores(self, key: str, scores: Mapping[str, Any]) -> None:
        """Keep scores under `key`; NaN is kept as such."""
        aside = self._aside(f"{key}.json")
        aside.write_text(json.dumps(scores), encoding="utf-8")
        aside.replace(self.folder / f"{key}.json")

    def _aside(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f".{name}.{os.getpid()}.part"
