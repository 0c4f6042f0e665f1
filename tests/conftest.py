"""Fixtures for all rooms.

real_data  folder of real scans (CTFACTORY_REAL_DATA, or ../shared/data/real); the test skips where it is absent
s3_address the address of a local S3 server, one for all tests
s3_root    the URL of an empty place in a bucket of it, the environment set so that the lake's libraries find it
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from s3_server import make_bucket, s3_server

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("CTFACTORY_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data" / "real")
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; set CTFACTORY_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def s3_root(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    bucket = f"lake-{uuid4().hex[:12]}"
    make_bucket(s3_address, bucket)
    for name, value in {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{bucket}/factory"
