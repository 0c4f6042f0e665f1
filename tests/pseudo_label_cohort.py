"""A small cohort and an untrained teacher, for the tests of pseudo-label runs and for the proof that kills them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_model import checkpoint

from datasets_registry.miniatures.phantom import make_anatomy, render
from imaging.nifti import write_nifti
from imaging.volume import Volume
from models.settings import ModelSettings
from tasks.ingest import ingest_batch, list_source
from tasks.settings import Settings

SPACING_MM = (12.0, 12.0, 15.0)
CLASSES = ("spleen", "liver", "liver_tumor")
SHAPE = (34, 28, 20)
AFFINE = np.array([[12.0, 0, 0, -198], [0, 12.0, 0, -162], [0, 0, 15.0, -150], [0, 0, 0, 1]])


def write_teacher(path: Path, seed: int = 2, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write an untrained model whose masks are neither empty nor full."""
    return checkpoint(path, ModelSettings(classes=classes, patch=(32, 32, 16), spacing_mm=SPACING_MM), seed)


def write_scans(folder: Path, count: int) -> Path:
    """Write `count` phantoms as `scan_<number>/ct.nii.gz`, already on the model's grid, and return the folder."""
    for number in range(count):
        array = render(make_anatomy(10 + number), SHAPE, AFFINE)[0].array.astype(np.int16)
        (folder / f"scan_{number}").mkdir(parents=True)
        write_nifti(Volume(array, AFFINE), folder / f"scan_{number}" / "ct.nii.gz")
    return folder


def ingest_cohort(folder: Path, settings: Settings, cohort: str = "clinic") -> list[str]:
    """Ingest the scans of a folder as an external cohort; return their case ids, sorted."""
    listing = list_source("local", folder, settings, cohort=cohort)
    outcomes = ingest_batch(listing.requests, settings)
    assert [item.outcome for item in outcomes] == ["ingested"] * len(outcomes)
    return sorted(item.case_id for item in outcomes)
