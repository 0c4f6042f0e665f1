"""The calibration of a model version: measured on held-out cases, kept in an MLflow run, found by the version's tag."""

from __future__ import annotations

from tasks.calibration import Calibration
from tasks.registry import ModelVersion
from tasks.settings import Settings

CALIBRATION_TAG = "calibration_run_id"
"""Tag of a model version: the MLflow run of its calibration."""


def load_calibration(version: ModelVersion, settings: Settings) -> Calibration | None:
    """Return the calibration of a version, None where it has none."""
    raise NotImplementedError
