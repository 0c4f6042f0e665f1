"""MLflow that goes away while a model is trained or registered: nothing trained is lost. A real server is killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from click.testing import Result
from mlflow_server import MlflowServer
from small_model import checkpoint
from typer.testing import CliRunner

from datasets_registry.miniatures import write_miniature
from flows.cli import app
from models.checkpoint import read_metadata
from models.train import LAST
from tasks.ingest import ingest_batch, list_source
from tasks.metric_queue import MetricQueue
from tasks.notices import told
from tasks.patience import does_not_answer, first_line, patiently
from tasks.pending import Registration, RegistrationPending, pending_registrations, register, register_pending
from tasks.registry import (
    CHALLENGER,
    WeightsChanged,
    alias_version,
    checkpoint_digest,
    fetch_checkpoint,
    list_versions,
    version_tags,
)
from tasks.settings import Settings
from tasks.tracking import find_runs, tracked_run
from tasks.train import train_model
from tasks.weights import WEIGHTS

PRESET = """
model: {backbone: tiny, text_encoder: hashing, prompt: V1, spacing_mm: [12, 12, 12], patch: [32, 32, 32]}
train: {steps: 60, batch: 1, lr: 1.0e-3, warmup: 1, save_every: 4, device: cpu, threads: 1, readers: 0}
"""


@pytest.fixture(scope="module", autouse=True)
def _few_tries() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("server")).start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, server: MlflowServer) -> Settings:
    return Settings(
        workspace=tmp_path_factory.mktemp("workspace"),
        mlflow_tracking_uri=server.url,
        spacing_mm=(12, 12, 12),
        device="cpu",
        threads=1,
        mlflow_patience_s=2,
        mlflow_flush_s=1,
    )


def environment(settings: Settings) -> dict[str, str]:
    return {
        "CTFACTORY_WORKSPACE": str(settings.workspace),
        "CTFACTORY_MLFLOW_TRACKING_URI": settings.mlflow_uri,
        "CTFACTORY_MODEL_NAME": settings.model_name,
        "CTFACTORY_EXPERIMENT": settings.experiment,
    }


@dataclass(frozen=True)
class Outage:
    """What was trained while MLflow was gone, which two runs wait for it, and what was said meanwhile."""

    trained: str
    ensemble: str
    notices: tuple[str, ...]
    refused: Result


@pytest.fixture(scope="module")
def outage(settings: Settings, server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Outage:
    """MLflow is killed in the middle of a training and started again after a second registration has failed too."""
    folder, heard = tmp_path_factory.mktemp("outage"), list[str]()
    write_miniature("chaos_ct", folder / "raw", cases=3, seed=7, truth_folder=folder / "truth")
    ingest_batch(list_source("chaos_ct", folder / "raw", settings).requests, settings)
    (folder / "preset.yaml").write_text(PRESET)
    for fold in (0, 1):
        checkpoint(folder / "ensemble" / f"fold_{fold}.safetensors", seed=fold)
    with tracked_run(settings, "folds", kind="cross-validation", tags={}) as ensemble:
        pass

    def kill_in_the_middle() -> None:
        while not any(read_metadata(last).step >= 8 for last in settings.workspace.glob(f"training/*/{LAST}")):
            time.sleep(0.01)
        server.kill()

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    with told(heard.append), pytest.raises(RegistrationPending) as pending:
        train_model(str(folder / "preset.yaml"), settings)
    killer.join()
    with pytest.raises(RegistrationPending):
        register(Registration(ensemble, folder / "ensemble", {"members": "two"}), settings)
    words = ["models", "register", "--pending", pending.value.run_id]
    refused = CliRunner().invoke(app, words, env=environment(settings))
    server.start()
    return Outage(pending.value.run_id, ensemble, (*heard, str(pending.value)), refused)


def test_a_training_outlives_its_mlflow_and_its_model_is_kept_aside(settings: Settings, outage: Outage) -> None:
    assert read_metadata(settings.workspace / "training" / outage.trained / "model.safetensors").step == 60
    assert any("does not take the metrics" in notice for notice in outage.notices)
    assert any("registering" in notice and "next try in 1 s" in notice for notice in outage.notices)
    assert "trained but not registered" in outage.notices[-1]
    assert f"ctfactory models register --pending {outage.trained} " in outage.notices[-1]
    assert outage.refused.exit_code != 0
    assert "still waits: MLflow at http://127.0.0.1" in str(outage.refused.exception)
    assert pending_registrations(settings) == sorted([outage.trained, outage.ensemble])  # they still wait


def test_a_kept_model_is_registered_with_all_its_curves_once_mlflow_is_back(settings: Settings, outage: Outage) -> None:
    done = CliRunner().invoke(app, ["models", "register", "--pending", outage.trained], env=environment(settings))
    assert done.exit_code == 0, done.output
    version = alias_version(CHALLENGER, settings)
    assert version is not None
    assert version.run_id == outage.trained
    assert f"run {outage.trained} is now {version.uri}" in done.output
    trained = settings.workspace / "training" / outage.trained / "model.safetensors"
    assert version_tags(version, settings)[WEIGHTS] == checkpoint_digest(trained)
    assert checkpoint_digest(fetch_checkpoint(version, settings)) == checkpoint_digest(trained)
    (run,) = find_runs(settings, "train")
    assert run.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(outage.trained, "loss")
    assert sorted(metric.step for metric in history) == [10, 20, 30, 40, 50, 60]
    assert {"seconds", "patches_per_second"} <= set(run.data.metrics)
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(outage.trained)}
    assert {"loss.png", "model_card.md", "data_licences.parquet", "annotated.html"} <= names
    assert outage.trained not in pending_registrations(settings)


def test_kept_weights_that_were_changed_are_not_registered(settings: Settings, outage: Outage) -> None:
    kept = settings.workspace / "pending" / outage.ensemble / "weights" / "fold_1.safetensors"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(WeightsChanged, match="the kept file was changed"):
        register_pending(outage.ensemble, settings)
    kept.write_bytes(whole)
    version = register_pending(outage.ensemble, settings)
    stored = fetch_checkpoint(version, settings)
    assert [file.name for file in sorted(stored.glob("*.safetensors"))] == ["fold_0.safetensors", "fold_1.safetensors"]
    assert fetch_checkpoint(version, settings) == stored
    # one copy in the workspace, however often it is fetched from a remote store
    copies = settings.workspace / "models" / "fetched" / f"{version.name}-{version.version}"
    assert [path.name for path in copies.iterdir()] == [checkpoint_digest(stored)[:16]]
    with pytest.raises(LookupError, match="no registration of this run"):
        register_pending(outage.ensemble, settings)


def test_a_registration_waits_for_an_mlflow_that_comes_back_in_time(
    settings: Settings, outage: Outage, server: MlflowServer, tmp_path: Path
) -> None:
    weights = checkpoint(tmp_path / "model.safetensors")
    patient = settings.model_copy(update={"mlflow_patience_s": 60})
    back = threading.Thread(target=server.start)

    def start_when_missed(notice: str) -> None:
        if "MLflow does not answer" in notice and back.ident is None:
            back.start()

    with told(start_when_missed), tracked_run(patient, "train", kind="train", tags={}) as run_id:
        server.kill()
        version = register(Registration(run_id, weights, {}, alias=CHALLENGER), patient)
    back.join()
    assert [one.version for one in list_versions(settings) if one.run_id == run_id] == [version.version]
    assert run_id not in pending_registrations(settings)


def test_what_is_wrong_with_the_request_is_not_tried_again(settings: Settings) -> None:
    tries = []

    def ask() -> None:
        tries.append(1)
        mlflow.MlflowClient(settings.mlflow_uri).get_run("0" * 32)

    with pytest.raises(mlflow.MlflowException, match="not found") as refused:
        patiently(ask, 60, "asking")
    assert len(tries) == 1
    assert not does_not_answer(refused.value)
    assert does_not_answer(ConnectionRefusedError())


def test_metrics_arrive_in_order_and_a_training_does_not_wait_for_them(settings: Settings) -> None:
    with tracked_run(settings, "train", kind="train", tags={}) as run_id:
        with MetricQueue(run_id, settings.model_copy(update={"mlflow_flush_s": 60})) as queue:
            begun = time.monotonic()
            for step in range(1, 1201):
                queue.add({"loss": 1 / step}, step)
            assert time.monotonic() - begun < 1
        assert queue.undelivered == ()
    history = mlflow.MlflowClient().get_metric_history(run_id, "loss")
    assert [(one.step, one.value) for one in sorted(history, key=lambda one: one.step)] == [
        (step, 1 / step) for step in range(1, 1201)
    ]


def test_what_is_told_of_an_error_is_one_line_without_a_password() -> None:
    error = OSError("API request to http://someone:secret@host:5000/api failed\nTraceback ...")
    assert first_line(error) == "API request to http://host:5000/api failed"
