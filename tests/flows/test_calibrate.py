"""The `calibrate` flow under a real Prefect server: a run row, a version tag and a page."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import torch

from datasets_registry.miniatures import write_miniature
from flows.calibrate import calibrate
from flows.local_server import prefect_api
from models.checkpoint import ModelMetadata, save_checkpoint
from models.settings import ModelSettings
from models.text import embed_classes, text_encoder
from models.universal import build_model
from tasks.ingest import ingest_batch, list_source
from tasks.registry import TRAINING_CASES, register_checkpoint, version_tags
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import tracked_run
from tasks.workspace import open_workspace

pytestmark = pytest.mark.end_to_end


def test_scores_are_calibrated_on_human_labels_the_model_has_not_seen(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path, spacing_mm=(12, 12, 12), threads=1)
    write_miniature("btcv", tmp_path / "raw", cases=5, seed=4, truth_folder=tmp_path / "truth")
    ingest_batch(list_source("btcv", tmp_path / "raw", settings).requests, settings)
    torch.manual_seed(0)
    chosen = ModelSettings(
        classes=("spleen", "right_kidney", "left_kidney", "liver", "stomach", "pancreas"),
        spacing_mm=(12, 12, 12),
        patch=(32, 32, 32),
        backbone="tiny",
    )
    embeddings = embed_classes(text_encoder(chosen.text_encoder), chosen.prompt, chosen.classes)
    network = build_model(chosen, embeddings)
    with torch.no_grad():
        network.controller.bias[-1] = 0.0  # masks that are neither empty nor full
    metadata = ModelMetadata(chosen, embeddings.encoder, chosen.prompt, embeddings.digest)
    checkpoint = save_checkpoint(tmp_path / "model.safetensors", network, metadata)
    with tracked_run(settings, "made", kind="train", tags={}):
        mlflow.log_text("btcv/none", TRAINING_CASES)
        version = register_checkpoint(checkpoint, settings, tags={})
    ids = tuple(open_workspace(settings).tables.cases("btcv")["case_id"])
    with prefect_api(settings):
        outcome = calibrate(version.uri, settings, choice=SplitChoice(only=ids)).outcome
    assert outcome.summary["patients"] == 5
    assert version_tags(version, settings)["calibration_run_id"] == outcome.run_id
    (run,) = open_workspace(settings).tables.runs("calibrate").to_dict("records")
    assert (run["outcome"], run["mlflow_run_id"], run["model_version"]) == ("done", outcome.run_id, "1")
