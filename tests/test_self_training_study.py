"""The round of self-training: who learns from what, and that the page says what the rows do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import self_training
from benchmarks.learning_data import Study, StudyScan
from benchmarks.learning_jobs import COLLECTION
from benchmarks.self_training import MixedSource, PseudoLabelled, parts_of, run_seed
from benchmarks.self_training_report import mean_dsc, table, write_report
from datasets_registry.taxonomy import class_info
from models.infer import Prediction
from models.settings import ModelSettings, TrainSettings

LIVER, SPLEEN = (class_info(name).channel for name in ("liver", "spleen"))


def _scan(dataset: str, number: int, *, held_out: bool = False) -> StudyScan:
    image = np.full((7, 6, 5), -100, np.int16)
    bits = np.zeros((1, 7, 6, 5), np.uint32)
    for channel, box in ((LIVER, np.s_[0:2, 1:3, 1:4]), (SPLEEN, np.s_[4:6, 1:3, 1:4])):
        image[box] = 120
        bits[0][box] |= np.uint32(1 << channel)
    return StudyScan(f"{dataset}/{number}", dataset, ("liver",), held_out, image, bits)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    for name in ("LABELLED", "CALIBRATION", "COHORT"):
        monkeypatch.setattr(self_training, name, 1)
    monkeypatch.setattr(self_training, "TEACHER_STEPS", 2)
    monkeypatch.setattr(self_training, "ROUND_STEPS", 1)
    settings_for = self_training.settings_for

    def small(*arguments: Any) -> tuple[ModelSettings, TrainSettings]:
        model, train = settings_for(*arguments)
        return replace(model, patch=(16, 16, 16)), train

    monkeypatch.setattr(self_training, "settings_for", small)
    scans = [_scan(name, number, held_out=number == 3) for name in COLLECTION[:2] for number in range(4)]
    return Study(tuple(scans), (6.0, 6.0, 6.0))


def test_no_scan_has_two_uses(study: Study) -> None:
    parts = parts_of(study)
    ids = [scan.case_id for part in vars(parts).values() for scan in part]
    assert len(ids) == len(set(ids)) == 8
    assert [scan.case_id[-1] for scan in parts.cohort] == ["2", "2"]


def test_a_student_sees_the_teachers_masks_where_they_are_accepted_and_never_the_truth() -> None:
    scan = _scan("a", 1)
    found = np.zeros_like(scan.bits)
    found[0, 6, 5, 4] = 1 << SPLEEN
    prediction = Prediction.__new__(Prediction)
    object.__setattr__(prediction, "bits", found)
    labelled = PseudoLabelled(scan, prediction, {"spleen": 0.8, "liver": 0.6}, {}).labels(0.7)
    source = MixedSource([_scan("b", 1)], [labelled])
    human, pseudo = source.cases()
    assert (human.annotated, human.pseudo) == ((LIVER,), ())
    assert (pseudo.annotated, pseudo.pseudo) == ((SPLEEN,), (SPLEEN,))
    bits = source.read("a/1", (0, 0, 0), (7, 6, 5))[1]
    assert np.argwhere(bits[0]).tolist() == [[6, 5, 4]]


def test_a_round_runs_from_teacher_to_page(study: Study, tmp_path: Path) -> None:
    row = run_seed(0, study, tmp_path / "work", threads=2)
    assert list(row["dsc"]) == ["teacher", "more steps", "accepted"]
    assert row["pseudo"]["masks"] == 2 * len(self_training.CLASSES)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "self_training.md").write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    write_report([row], docs)
    text = (docs / "self_training.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| teacher | {mean_dsc(row, 'teacher'):.3f} |" in text
    assert (docs / "pictures" / "self_training.png").stat().st_size > 1000


def test_the_table_shows_gains_of_each_seed() -> None:
    def row(seed: int, teacher: float, student: float) -> dict[str, object]:
        dsc = {"teacher": {"liver": [teacher, 0.5]}, "accepted": {"liver": [student, 0.6]}}
        pseudo = {"masks": 4, "accepted": 2, "true_dsc_accepted": 0.9, "true_dsc_all": 0.7, "correlation": 0.5}
        return {"seed": seed, "dsc": dsc, "pseudo": pseudo}

    lines = table([row(0, 0.5, 0.6), row(1, 0.7, 0.65)])
    assert "| with accepted pseudo-labels | 0.625 | 0.600, 0.650 | +0.100, -0.050 | 0.600 |" in lines
    assert "| accepted | 2, 2 |" in lines
