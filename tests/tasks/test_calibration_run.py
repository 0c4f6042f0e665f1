"""Calibrating a registered model on human labels of a real lake: what is measured, kept and found again."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch

from datasets_registry.miniatures import write_miniature
from models.checkpoint import ModelMetadata, save_checkpoint
from models.settings import ModelSettings
from models.text import embed_classes, text_encoder
from models.universal import build_model
from tasks.calibration import Measured
from tasks.calibration_run import CalibrationOutcome, load_calibration, log_calibration, measure_cases
from tasks.ingest import ingest_batch, list_source
from tasks.label_scores import case_quality, usual_scans
from tasks.notices import told
from tasks.plausibility_reference import human_reference
from tasks.prediction import case_image
from tasks.registry import ModelVersion, fetch_checkpoint, register_checkpoint, version_tags
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import tracked_run
from tasks.workspace import open_workspace, row_dicts

CLASSES = ("spleen", "right_kidney", "liver", "stomach", "pancreas")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(workspace=tmp_path_factory.mktemp("calibration"), spacing_mm=(12, 12, 12), threads=1)
    for dataset, cases in (("btcv", 4), ("kits", 2)):
        raw = settings.workspace / "raw" / dataset
        write_miniature(dataset, raw, cases=cases, seed=3, truth_folder=settings.workspace / "truth")
        assert {one.outcome for one in ingest_batch(list_source(dataset, raw, settings).requests, settings)} == {
            "ingested"
        }
    return settings


@pytest.fixture(scope="module")
def model(settings: Settings) -> ModelVersion:
    torch.manual_seed(0)
    chosen = ModelSettings(classes=CLASSES, spacing_mm=(12, 12, 12), patch=(32, 32, 32), backbone="tiny")
    checkpoint = settings.workspace / "model.safetensors"
    embeddings = embed_classes(text_encoder(chosen.text_encoder), chosen.prompt, chosen.classes)
    network = build_model(chosen, embeddings)
    with torch.no_grad():
        network.controller.bias[-1] = 0.0  # masks that are neither empty nor full
    save_checkpoint(checkpoint, network, ModelMetadata(chosen, embeddings.encoder, chosen.prompt, embeddings.digest))
    with tracked_run(settings, "made", kind="train", tags={}):
        return register_checkpoint(checkpoint, settings, tags={})


@pytest.fixture(scope="module")
def measured(settings: Settings, model: ModelVersion) -> list[Measured]:
    workspace = open_workspace(settings)
    cases = workspace.tables.cases("btcv")
    versions = workspace.tables.versions()
    reference = human_reference(workspace, versions, without=set(cases["case_id"]))
    return measure_cases(cases, fetch_checkpoint(model, settings), reference, versions, settings)


@pytest.fixture(scope="module")
def outcome(settings: Settings, model: ModelVersion, measured: list[Measured]) -> CalibrationOutcome:
    versions = open_workspace(settings).tables.versions()
    return log_calibration(measured, model, settings, choice=SplitChoice(), table_versions=versions)


def test_each_class_with_a_human_label_is_measured_in_each_case(measured: list[Measured]) -> None:
    assert len({one.case_id for one in measured}) == 4
    assert len(measured) == 4 * len(CLASSES)
    assert all(one.dsc is None or 0 <= one.dsc <= 1 for one in measured)
    found = [one.scores for one in measured if not one.empty]
    assert all(0.5 <= (one.mean_prob or 0) <= 1 for one in found)
    assert all(one.boundary_entropy is None or 0 <= one.boundary_entropy <= 1 for one in found)


def test_the_version_names_the_run_that_holds_map_figures_and_picture(
    settings: Settings, model: ModelVersion, outcome: CalibrationOutcome
) -> None:
    assert version_tags(model, settings)["calibration_run_id"] == outcome.run_id
    run = mlflow.get_run(outcome.run_id)
    assert run.data.tags["kind"] == "calibrate"
    assert "table_versions" in run.data.tags
    assert {"mean_absolute_error", "masks", "cases", "patients"} <= set(run.data.metrics)
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(outcome.run_id)}
    assert {
        "calibration.json",
        "measured.parquet",
        "cross_validated.parquet",
        "classes.csv",
        "reliability.png",
    } <= names
    kept = pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{outcome.run_id}/cross_validated.parquet"))
    assert len(kept) == len(outcome.pairs)


def test_what_is_loaded_expects_what_was_fitted(
    settings: Settings, model: ModelVersion, outcome: CalibrationOutcome, measured: list[Measured]
) -> None:
    loaded = load_calibration(model, settings)
    assert loaded is not None
    assert loaded.run_id == outcome.run_id
    for one in measured:
        assert loaded.expected_dsc(one.scores) == outcome.calibration.expected_dsc(one.scores)


def test_another_way_to_predict_is_told(settings: Settings, model: ModelVersion, outcome: CalibrationOutcome) -> None:
    heard: list[str] = []
    with told(heard.append):
        load_calibration(model, settings.model_copy(update={"window_overlap": 0.25}))
        load_calibration(model, settings)
    assert len(heard) == 1
    assert "calibrated with window_overlap 0.5, now 0.25" in heard[0]


def test_a_version_that_was_never_calibrated_has_none(settings: Settings, model: ModelVersion) -> None:
    with tracked_run(settings, "other", kind="train", tags={}):
        other = register_checkpoint(settings.workspace / "model.safetensors", settings, tags={})
    assert load_calibration(other, settings) is None


def test_scans_are_held_against_the_training_cases_of_the_tables(settings: Settings) -> None:
    workspace = open_workspace(settings)
    usual = usual_scans(workspace)
    assert usual is not None
    assert usual.cases == 6
    # BTCV's miniature is 4 x 4 x 5 mm and KiTS's 4.2 x 4.2 x 4.5 mm, stored in another order of axes
    assert usual.spacing_mm[0] == pytest.approx((4.0, 4.2))
    assert usual.spacing_mm[2] == pytest.approx((4.5, 5.0))
    for case in row_dicts(workspace.tables.cases()):
        assert case_quality(workspace, case, case_image(workspace, case)).flags == ()


def test_the_reference_is_of_human_labels_and_leaves_out_whom_it_is_told_to(settings: Settings) -> None:
    workspace = open_workspace(settings)
    every = human_reference(workspace)
    assert every.present["right_kidney"] == (6, 6)
    assert every.present["liver"] == (4, 4)
    assert human_reference(workspace, without={"btcv/0001"}).present["liver"] == (3, 3)
    assert human_reference(workspace) is every  # computed once for each version of the tables


def test_the_settings_name_no_workspace_of_another_process(settings: Settings, tmp_path: Path) -> None:
    elsewhere = settings.model_copy(update={"workspace": tmp_path})
    assert human_reference(open_workspace(elsewhere)).present == {}
