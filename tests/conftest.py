"""Fixtures for all rooms.

real_data  folder of real scans (CTFACTORY_REAL_DATA, or ../shared/data/real); the test skips where it is absent
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("CTFACTORY_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data" / "real")
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; set CTFACTORY_REAL_DATA to their folder")
    return folder
