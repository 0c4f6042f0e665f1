"""Real scans through the ingest step. They are not part of the repository: the tests skip where they are absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets_registry.card_files import CARDS
from datasets_registry.cards import load_card
from tasks.ingest import ingest_batch, list_source
from tasks.ingest_case import CaseOutcome
from tasks.settings import Settings
from tasks.workspace import open_workspace

pytestmark = pytest.mark.real_data


def _ingest(card: str, source: Path, settings: Settings, cohort: str | None = None) -> list[CaseOutcome]:
    listing = list_source(card, source, settings, cohort=cohort)
    return [*listing.refused, *ingest_batch(listing.requests, settings)]


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A hospital's own copy of the card `local`, which also takes series of a few slices."""
    folder = tmp_path / "cards"
    folder.mkdir()
    text = (CARDS / "local.yaml").read_text()
    copied = text.replace("id: local\n", "id: clinic\n", 1).replace("min_slices: 10", "min_slices: 2", 1)
    (folder / "clinic.yaml").write_text(copied)
    monkeypatch.setenv("CTFACTORY_CARDS", str(folder))
    return "clinic"


def _expected_ml(source: Path) -> dict[str, float]:
    """Volumes in ml per class, summed from source.json over the native values that the card maps onto the class."""
    native = json.loads((source / "source.json").read_text())["expected"]["label_fast.nii.gz"]["labels"]
    totals: dict[str, float] = {}
    for value, meaning in load_card("totalsegmentator_example").labels.items():
        for name in meaning.classes:
            totals[name] = totals.get(name, 0.0) + native.get(str(value), {}).get("volume_ml", 0.0)
    return totals


@pytest.mark.parametrize(
    ("spacing_mm", "relative", "absolute_ml"),
    [
        ((3.0, 3.0, 3.0), 1e-6, 1e-3),  # the scan's own grid: every voxel is kept
        ((2.0, 2.0, 2.0), 0.05, 0.6),  # nearest neighbour moves surfaces by up to half a voxel of 3 mm
        ((1.5, 1.5, 1.5), 0.03, 0.6),
    ],
)
def test_volumes_of_every_label_agree_with_the_source(
    real_data: Path, tmp_path: Path, spacing_mm: tuple[float, float, float], relative: float, absolute_ml: float
) -> None:
    source = real_data / "totalsegmentator_example"
    settings = Settings(workspace=tmp_path, spacing_mm=spacing_mm)
    (outcome,) = _ingest("totalsegmentator_example", source, settings)
    assert outcome.outcome == "ingested"
    labels = open_workspace(settings).tables.labels("totalsegmentator_example")
    measured = dict(zip(labels["class_name"], labels["ml"], strict=True))
    expected = _expected_ml(source)
    assert set(measured) == set(load_card("totalsegmentator_example").annotated_classes)
    for name, ml in measured.items():
        assert ml == pytest.approx(expected[name], rel=relative, abs=absolute_ml), name


def test_labels_of_a_model_enter_as_pseudo(real_data: Path, tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path, spacing_mm=(6, 6, 6))
    _ingest("totalsegmentator_example", real_data / "totalsegmentator_example", settings)
    labels = open_workspace(settings).tables.labels()
    assert set(labels["state"]) == {"pseudo"}
    assert set(labels["label_origin"]) == {"model"}


@pytest.mark.parametrize(
    ("folder", "outcome", "reason"),
    [
        ("dicom_missing_slice", "quarantined", "10.000 mm"),
        ("dicom_same_position", "quarantined", "4 different images at the one position"),
        ("dicom_gantry_tilt", "ingested", ""),
        ("totalsegmentator_dicom", "ingested", ""),
        ("crlm_ct_1004_unlabelled", "ingested", ""),
    ],
)
def test_real_dicom_cases(real_data: Path, tmp_path: Path, clinic: str, folder: str, outcome: str, reason: str) -> None:
    settings = Settings(workspace=tmp_path, spacing_mm=(6, 6, 6))
    (found,) = _ingest(clinic, real_data / folder, settings)
    assert found.outcome == outcome
    assert reason in found.message
    tables = open_workspace(settings).tables
    assert len(tables.cases()) == (outcome == "ingested")
    assert len(tables.quarantined()) == (outcome == "quarantined")


def test_gantry_tilt_is_repaired_and_written_down(real_data: Path, tmp_path: Path, clinic: str) -> None:
    settings = Settings(workspace=tmp_path, spacing_mm=(6, 6, 6))
    _ingest(clinic, real_data / "dicom_gantry_tilt", settings)
    (steps,) = open_workspace(settings).tables.cases()["steps"]
    (straightened,) = [step for step in map(json.loads, steps) if step["step"] == "straighten"]
    assert straightened["degrees"] == pytest.approx(14.0, abs=0.1)


def test_one_scan_in_two_formats_shares_a_split_group(real_data: Path, tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path, spacing_mm=(6, 6, 6))
    outcomes = _ingest("local", real_data / "ibsi_lung_tumour", settings, cohort="real")
    assert [item.outcome for item in outcomes] == ["ingested", "ingested"]
    cases = open_workspace(settings).tables.cases()
    assert cases["split_group"].nunique() == 1
    assert sum(flag.startswith("same_scan: ") for flags in cases["flags"] for flag in flags) == 1
