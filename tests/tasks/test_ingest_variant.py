"""A label variant from the command's option to the rows: which labels are read, and what counts as annotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imaging.nifti import write_nifti
from imaging.volume import Volume
from tasks.ingest import ingest_batch, list_source
from tasks.settings import Settings
from tasks.workspace import open_workspace

SHAPE = (20, 16, 10)
AFFINE = np.array([[8.0, 0, 0, -76], [0, 9.0, 0, -60], [0, 0, 10.0, -20], [0, 0, 0, 1]])


@pytest.fixture
def btcv(tmp_path: Path) -> Path:
    """Cases 0001 (training part) and 0061 (test part), each with Gibson's label, 0001 with the official one too."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[3:17, 2:14, :] = -90
    hu[9:11, 3:6, :] = 450
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[12:15, 5:9, 2:7] = 2  # right kidney, at high x
    label[5:8, 5:9, 2:7] = 3  # left kidney
    label[10:13, 10:12, 5:7] = 14  # duodenum, which the official labels do not have
    for number, part in (("0001", "Training"), ("0061", "Testing")):
        hu[4:16, 7:13, 8:] = -850 + int(number)  # two scans, not one twice
        put(Volume(hu.copy(), AFFINE), tmp_path / "RawData" / part / "img" / f"img{number}.nii.gz")
        put(Volume(label, AFFINE), tmp_path / "label_btcv_multiorgan" / f"label{number}.nii.gz")
    official = np.where(label == 14, 0, label).astype(np.uint8)
    put(Volume(official, AFFINE), tmp_path / "RawData" / "Training" / "label" / "label0001.nii.gz")
    return tmp_path


def put(volume: Volume, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(volume, path)


def annotated(settings: Settings, raw: Path, variant: str | None) -> dict[str, set[str]]:
    """Ingest, and return case -> classes with a row."""
    listing = list_source("btcv", raw, settings, variant=variant)
    assert listing.refused == ()
    outcomes = ingest_batch(listing.requests, settings)
    assert [outcome.outcome for outcome in outcomes] == ["ingested", "ingested"], outcomes
    rows = open_workspace(settings).tables.labels()
    return {case: set(rows[rows["case_id"] == case]["class_name"]) for case in ("btcv/0001", "btcv/0061")}


def test_the_variant_decides_which_labels_are_read_and_what_is_annotated_by_case(btcv: Path, tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "ws", spacing_mm=(8.0, 9.0, 10.0))
    gibson = annotated(settings, btcv, "gibson")
    assert len(gibson["btcv/0001"]) == 14
    assert "duodenum" in gibson["btcv/0061"]
    assert "right_kidney" not in gibson["btcv/0061"]  # although value 2 occurs in that label
    assert len(gibson["btcv/0061"]) == 8
    flags = open_workspace(settings).tables.cases().set_index("case_id")["flags"]
    assert any("label_maybe_incomplete" in flag for flag in flags["btcv/0061"])


def test_without_a_variant_the_official_labels_are_read(btcv: Path, tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "ws", spacing_mm=(8.0, 9.0, 10.0))
    official = annotated(settings, btcv, None)
    assert len(official["btcv/0001"]) == 13
    assert "duodenum" not in official["btcv/0001"]
    assert official["btcv/0061"] == set()


def test_an_unknown_variant_lists_the_known(btcv: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="card btcv: no label variant 'gibbon'; known: official, gibson"):
        list_source("btcv", btcv, Settings(workspace=tmp_path / "ws"), variant="gibbon")
