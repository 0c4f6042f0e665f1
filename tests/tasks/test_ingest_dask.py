"""An ingest by worker processes: the lake and rows of a loop; a case too large for a worker is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catalog.manifest import file_sha256
from imaging.nifti import write_nifti
from imaging.volume import Volume
from tasks.ingest import count_outcomes, ingest_batch, list_source
from tasks.miniatures import write_miniature_set
from tasks.settings import Settings
from tasks.workspace import open_workspace

CARD, CASES = "word", 3


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature_set(CARD, tmp_path_factory.mktemp("miniatures"), cases=CASES, seed=3)


def _ingest(raw: Path, settings: Settings) -> list[str]:
    outcomes = ingest_batch(list_source(CARD, raw, settings).requests, settings)
    assert [item.case_id for item in outcomes] == sorted(item.case_id for item in outcomes)
    return [item.outcome for item in outcomes]


def _files(settings: Settings) -> dict[str, str]:
    root = settings.workspace / "lake" / "volumes"
    return {str(path.relative_to(root)): file_sha256(path) for path in root.rglob("*") if path.is_file()}


def _rows(table: pd.DataFrame) -> list[dict[str, object]]:
    return table.drop(columns=["committed_at"], errors="ignore").map(str).to_dict("records")


def test_two_processes_write_what_a_loop_writes(raw: Path, tmp_path: Path) -> None:
    loop = Settings(workspace=tmp_path / "loop", spacing_mm=(6, 6, 6))
    dask = loop.model_copy(update={"workspace": tmp_path / "dask", "dask_address": "local", "workers": 2})
    for settings in (loop, dask):
        assert _ingest(raw, settings) == ["ingested"] * CASES
    assert len(_files(loop)) > 3 * CASES
    assert _files(loop) == _files(dask)
    ours, theirs = open_workspace(loop).tables, open_workspace(dask).tables
    assert _rows(ours.cases()) == _rows(theirs.cases())
    assert _rows(ours.labels()) == _rows(theirs.labels())
    assert _ingest(raw, dask) == ["unchanged"] * CASES


def test_a_case_too_large_for_a_worker_is_quarantined_and_the_others_are_ingested(raw: Path, tmp_path: Path) -> None:
    source = tmp_path / "raw"
    shutil.copytree(raw, source)
    (image,) = source.rglob("imagesTr/word_0002.nii.gz")
    write_nifti(Volume(np.zeros((500, 500, 500), np.int16), np.diag([1.0, 1.0, 1.0, 1.0])), image)
    settings = Settings(
        workspace=tmp_path, spacing_mm=(6, 6, 6), dask_address="local", workers=1, worker_memory_gib=0.6
    )
    requests = list_source(CARD, source, settings, flow_run_id="run-1").requests
    outcomes = ingest_batch(requests, settings)
    assert count_outcomes(outcomes) == {"ingested": CASES - 1, "unchanged": 0, "quarantined": 1}
    (row,) = open_workspace(settings).tables.quarantined().to_dict("records")
    assert (row["dataset"], row["native_id"], row["code"]) == (CARD, "0002", "out_of_memory")
    assert "in the last of 3 tries" in row["found"]
    assert row["retry"].startswith(f"ctfactory ingest {CARD} --source ")
    assert row["flow_run_id"] == "run-1"
    (refused,) = [item for item in outcomes if item.outcome == "quarantined"]
    assert refused.case_id == f"{CARD}/0002"
    assert "CTFACTORY_WORKER_MEMORY_GIB" in refused.message
