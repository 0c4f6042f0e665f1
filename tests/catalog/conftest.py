"""What the catalog's tests share: `lake` and `tables` in an empty folder, `scan()` and `label()` of a few voxels,
`case_row()` and `label_row()` as the ingest would write them, `ingested()` for a case that is in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catalog_rows import GEOMETRY, Clock, make_case_row, make_label, make_label_row, make_scan
from numpy.typing import NDArray

from catalog.lake import Lake
from catalog.tables import Tables
from imaging.volume import Volume


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path, now=Clock())


@pytest.fixture
def scan() -> Callable[..., Volume]:
    return make_scan


@pytest.fixture
def label() -> Callable[..., NDArray[Any]]:
    return make_label


@pytest.fixture
def case_row() -> Callable[..., dict[str, Any]]:
    return make_case_row


@pytest.fixture
def label_row() -> Callable[..., dict[str, Any]]:
    return make_label_row


@pytest.fixture
def ingested(lake: Lake, tables: Tables) -> Callable[..., dict[str, Any]]:
    """Write a case with its human label and commit it; returns its row of `Tables.cases()`."""

    def ingest(dataset: str = "kits", native_id: str = "case_1", seed: int = 0) -> dict[str, Any]:
        key = make_case_row(dataset, native_id)["ingest_key"]
        stored = lake.write_case(dataset, native_id, key, make_scan(seed), GEOMETRY, {"human": make_label(seed)})
        row = make_case_row(dataset, native_id, stored)
        manifest = stored.annotation_manifest("human").to_json()
        tables.commit_case(row, [make_label_row(row, name, manifest=manifest) for name in ("liver", "spleen")])
        return dict(tables.cases(case_ids=[row["case_id"]]).iloc[0])

    return ingest
