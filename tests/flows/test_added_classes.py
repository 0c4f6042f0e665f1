"""A hospital's own classes, from its folder to masks: declared, ingested, added to a model, scored, predicted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from datasets_registry.card_files import CARDS
from datasets_registry.miniatures.case_scans import patient_scan
from datasets_registry.miniatures.structures import class_mask
from datasets_registry.miniatures.styles import EXTERNAL_STYLE
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.ingest_all import cards_of, ingest_miniatures
from flows.local_server import prefect_api
from flows.pseudo_label import pseudo_label
from flows.train import fine_tune, train
from imaging.nifti import write_nifti
from models.checkpoint import load_model, read_metadata
from tasks.prediction import trained_classes
from tasks.registry import fetch_checkpoint, model_version, training_cases
from tasks.settings import Settings
from tasks.train import TrainOutcome
from tasks.workspace import open_workspace

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
TAXONOMY = """
classes:
  - {index: 33, name: left_renal_vein, kind: vessel, side: left, mirror: right_renal_vein}
  - {index: 34, name: right_renal_vein, kind: vessel, side: right, mirror: left_renal_vein}
"""
OLD = ("liver", "spleen")
VEINS = ("left_renal_vein", "right_renal_vein")
PRESET = """
model: {backbone: tiny, classes: [liver, spleen], spacing_mm: [12, 12, 12], patch: [32, 32, 32]}
train: {steps: 3, batch: 2, lr: 1.0e-3, warmup: 1, device: cpu, threads: 1}
"""


def write_scans(folder: Path, cases: int, *, labelled: bool) -> Path:
    """Write NIfTI scans; the masks of both veins, with a kidney standing in for each, beside them."""
    for case in range(cases):
        scan = patient_scan(f"veins/{labelled}/{case}", 3, EXTERNAL_STYLE, {})
        place = folder / f"scan{case}"
        (place / "masks").mkdir(parents=True)
        write_nifti(scan.image, place / "ct.nii.gz")
        for side in ("left", "right") if labelled else ():
            mask = class_mask(scan, f"{side}_kidney").astype(np.uint8)
            write_nifti(scan.image.with_array(mask), place / "masks" / f"{side}_renal_vein.nii.gz")
    return folder


def own_card(folder: Path) -> Path:
    """Write a copy of the card `local` for training sets that annotate the veins."""
    fields = yaml.safe_load((CARDS / "local.yaml").read_text())
    fields |= {
        "id": "veins",
        "role": "train",
        "labels": {33 + place: {"name": name, "classes": [name]} for place, name in enumerate(VEINS)},
        "annotated_classes": list(VEINS),
    }
    folder.mkdir()
    (folder / "veins.yaml").write_text(yaml.safe_dump(fields))
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("veins")
    (folder / "classes.yaml").write_text(TAXONOMY)
    (folder / "preset.yaml").write_text(PRESET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTFACTORY_TAXONOMY", str(folder / "classes.yaml"))
        patch.setenv("CTFACTORY_CARDS", str(own_card(folder / "cards")))
        found = Settings(workspace=folder, spacing_mm=(12, 12, 12), nsd_tolerance_mm=12, device="cpu", threads=1)
        with prefect_api(found) as url:
            patch.setenv("PREFECT_API_URL", url)
            yield found


@pytest.fixture(scope="module")
def parent(settings: Settings) -> TrainOutcome:
    """A model of liver and spleen, trained before anybody spoke of veins: its set lies in the lake with one word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CTFACTORY_TAXONOMY")
        patch.delenv("CTFACTORY_CARDS")
        ingest_miniatures(cards_of("chaos_ct", None), settings, cases=3)
        return train(str(settings.workspace / "preset.yaml"), settings)


@pytest.fixture(scope="module")
def child(parent: TrainOutcome, settings: Settings) -> str:
    """The address of the version that the command makes of it."""
    report = ingest("veins", write_scans(settings.workspace / "raw_veins", 3, labelled=True), settings)
    assert report.counts == {"ingested": 3, "unchanged": 0, "quarantined": 0}
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CTFACTORY_WORKSPACE": str(settings.workspace),
        "CTFACTORY_SPACING_MM": "[12, 12, 12]",
        "CTFACTORY_DEVICE": "cpu",
        "CTFACTORY_THREADS": "1",
    }
    preset = str(settings.workspace / "preset.yaml")
    words = ["fine-tune", "1", "--add-classes", "left renal vein,Right renal vein", "--config", preset, "--json"]
    result = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return str(json.loads(result.stdout)["model"])


def test_only_cases_with_new_classes_were_read_and_the_rest_is_remembered(
    child: str, parent: TrainOutcome, settings: Settings
) -> None:
    version = model_version(child, settings)
    old, new = (read_metadata(fetch_checkpoint(one, settings)) for one in (parent.model, version))
    assert new.model.classes == (*OLD, *VEINS)
    assert [one.classes for one in new.extensions] == [VEINS]
    assert new.frozen[0] == "backbone"
    assert new.extra["parent"] == parent.model.uri
    assert trained_classes(new) == (*trained_classes(old), *VEINS)
    assert {case.split("/")[0] for case in training_cases(version, settings)} == {"chaos_ct", "veins"}


def test_older_logits_are_the_same_to_the_last_bit(child: str, parent: TrainOutcome, settings: Settings) -> None:
    before, _ = load_model(fetch_checkpoint(parent.model, settings))
    after, _ = load_model(fetch_checkpoint(model_version(child, settings), settings))
    x = torch.rand(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(after(x)[:, :2], before(x))


def test_old_and_new_classes_are_scored_and_predicted(child: str, settings: Settings) -> None:
    scored = evaluate(child, settings).classes
    assert set(scored["class_name"]) >= {"liver", *VEINS}
    ingest("local", write_scans(settings.workspace / "raw_clinic", 1, labelled=False), settings, "clinic")
    (outcome,) = pseudo_label("clinic", child, settings).outcomes
    assert outcome.outcome == "labelled", outcome.message
    assert set(outcome.classes) >= {"liver", *VEINS}
    rows = open_workspace(settings).tables.labels("clinic")
    assert (
        dict(zip(rows["class_name"], rows["channel"], strict=True)).items()
        >= {
            "liver": 5,
            "left_renal_vein": 32,
            "right_renal_vein": 33,
        }.items()
    )


def test_all_of_it_is_fine_tuned_on_old_and_new_sets_together(child: str, settings: Settings) -> None:
    outcome = fine_tune(child, str(settings.workspace / "preset.yaml"), settings)  # bits of one and of two words
    before, after = (
        load_model(fetch_checkpoint(one, settings))[0].state_dict()
        for one in (model_version(child, settings), outcome.model)
    )
    assert not torch.equal(before["backbone.edges.weight"], after["backbone.edges.weight"])
    assert outcome.cases == 4


def test_transfer_keeps_the_backbone_for_other_classes(parent: TrainOutcome, child: str, settings: Settings) -> None:
    outcome = fine_tune(
        parent.model.uri, str(settings.workspace / "preset.yaml"), settings, transfer_to=["Left renal vein"]
    )
    metadata = read_metadata(fetch_checkpoint(outcome.model, settings))
    assert metadata.model.classes == ("left_renal_vein",)
    assert trained_classes(metadata) == ("left_renal_vein",)


def test_a_model_is_not_loaded_under_another_class_table(
    child: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_checkpoint(model_version(child, settings), settings)
    monkeypatch.delenv("CTFACTORY_TAXONOMY")
    with pytest.raises(
        ValueError, match=r"left_renal_vein, right_renal_vein are not among the 32 .*CTFACTORY_TAXONOMY"
    ):
        read_metadata(path)
    (tmp_path / "turned.yaml").write_text(
        "classes: [{index: 33, name: right_renal_vein, kind: vessel}, {index: 34, name: left_renal_vein, kind: vessel}]"
    )
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(tmp_path / "turned.yaml"))
    with pytest.raises(ValueError, match="left_renal_vein is class 34, the model was trained with 33"):
        read_metadata(path)
    with pytest.raises(ValueError, match=r"lies in bit 3[23] of the lake, in bit 3[23] by the class table here"):
        train(str(settings.workspace / "preset.yaml"), settings, ["veins"])
