"""Trainings as a user starts them: killed and gone on with, on two devices, under torchrun, and over folds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from prefect.client.orchestration import get_client
from safetensors.torch import load_file

from catalog.splits import TEST
from flows.cross_validate import cross_validate
from flows.evaluate import evaluate
from flows.ingest_all import cards_of, ingest_miniatures
from flows.local_server import prefect_api
from models.checkpoint import members, read_metadata
from models.train import LAST
from tasks.cross_validation import KIND as CROSS_VALIDATION
from tasks.cross_validation import CrossValidation, folds_to_do
from tasks.registry import CHALLENGER, alias_version, fetch_checkpoint, model_version, training_cases
from tasks.settings import Settings
from tasks.tracking import find_runs
from tasks.train import KIND, resume_training, train_model
from tasks.train_request import only_process_of
from tasks.workspace import open_workspace

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
PRESET = """
model: {backbone: tiny, text_encoder: hashing, prompt: V1, spacing_mm: [12, 12, 12], patch: [32, 32, 32]}
train: {steps: %d, batch: 2, accumulate: %d, lr: 1.0e-3, warmup: 1, ema: 0.9, save_every: 2, device: cpu, threads: 1,
        devices: %d, readers: 0}
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        workspace=tmp_path_factory.mktemp("training"),
        spacing_mm=(12, 12, 12),
        nsd_tolerance_mm=12,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def environment(settings: Settings) -> Iterator[dict[str, str]]:
    threads = torch.get_num_threads()
    with prefect_api(settings) as url:
        ingest_miniatures(cards_of("chaos_ct", None), settings, cases=7)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CTFACTORY_")}
        yield {
            **kept,
            "PREFECT_API_URL": url,
            "PYTHONPATH": str(ROOT),
            "CTFACTORY_WORKSPACE": str(settings.workspace),
            "CTFACTORY_SPACING_MM": "[12, 12, 12]",
            "CTFACTORY_NSD_TOLERANCE_MM": "12",
            "CTFACTORY_DEVICE": "cpu",
            "CTFACTORY_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
        }
    torch.set_num_threads(threads)


def preset(settings: Settings, name: str, *, steps: int, accumulate: int = 1, devices: int = 1) -> str:
    file = settings.workspace / f"{name}.yaml"
    file.write_text(PRESET % (steps, accumulate, devices))
    return str(file)


def ctfactory(environment: dict[str, str], *words: str, command: list[str] = COMMAND) -> dict[str, object]:
    done = subprocess.run(
        [*command, *words, "--json"], env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def killed(environment: dict[str, str], due: Callable[[], bool], *words: str) -> None:
    with subprocess.Popen([*COMMAND, *words], env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not due():
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def steps_done(settings: Settings, run_id: str) -> int:
    checkpoint = settings.workspace / "training" / run_id / LAST
    return read_metadata(checkpoint).step if checkpoint.is_file() else 0


def weights(settings: Settings, run_id: str) -> dict[str, torch.Tensor]:
    return load_file(settings.workspace / "training" / run_id / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_killed_training_goes_on_in_its_run_and_ends_with_the_same_bits(
    settings: Settings, environment: dict[str, str]
) -> None:
    file = preset(settings, "killed", steps=40, accumulate=2)
    folder = settings.workspace / "training"
    killed(
        environment,
        lambda: any(steps_done(settings, run.name) >= 6 for run in folder.glob("*")),
        *("train", "--config", file),
    )
    (run,) = find_runs(settings, KIND)
    assert run.info.status == "RUNNING"
    before = steps_done(settings, run.info.run_id)
    assert 6 <= before < 40
    with only_process_of(folder / run.info.run_id, "it"), pytest.raises(RuntimeError, match="another process is at"):
        resume_training(run.info.run_id, settings)

    told = ctfactory(environment, "train", "--resume", "last")
    assert (told["run_id"], told["resumed_from"], told["steps"]) == (run.info.run_id, before, 40)
    assert len(find_runs(settings, KIND)) == 1
    whole = train_model(file, settings)
    same(weights(settings, run.info.run_id), weights(settings, whole.run_id))

    ended = mlflow.get_run(run.info.run_id)
    assert ended.info.status == "FINISHED"
    assert {"loss", "patches_per_s", "data_wait_share", "seconds_left", "grad_norm"} <= set(ended.data.metrics)
    assert any(name.startswith("system/") for name in ended.data.metrics)
    with get_client(sync_client=True) as client:
        shown = [one for one in client.read_artifacts() if one.key == "train-progress"]
    assert any(one.data == 100.0 and "patches/s" in (one.description or "") for one in shown)
    with pytest.raises(LookupError, match="this run has finished; no train run waits"):
        resume_training(run.info.run_id, settings)


def test_two_devices_are_trained_on_by_the_command_and_under_torchrun_alike(
    settings: Settings, environment: dict[str, str]
) -> None:
    runs, versions = len(find_runs(settings, KIND)), alias_version(CHALLENGER, settings)
    own = ctfactory(environment, "train", "--config", preset(settings, "two", steps=4, devices=2))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    launched = ctfactory(
        environment,
        *("train", "--config", preset(settings, "any", steps=4)),
        command=[*launcher, *COMMAND],
    )
    alone = train_model(preset(settings, "alone", steps=4), settings)
    two, other, one = (weights(settings, str(run)) for run in (own["run_id"], launched["run_id"], alone.run_id))
    same(two, other)
    assert not all(torch.equal(value, one[name]) for name, value in two.items())
    # the other processes leave nothing in MLflow or the registry
    assert len(find_runs(settings, KIND)) == runs + 3
    newest = alias_version(CHALLENGER, settings)
    assert newest is not None
    assert newest.version - (0 if versions is None else versions.version) == 3


@pytest.fixture(scope="module")
def validated(settings: Settings, environment: dict[str, str]) -> CrossValidation:
    """Two folds, killed in the second one and gone on with."""
    file = preset(settings, "folds", steps=30)

    def in_second_fold() -> bool:
        parents = find_runs(settings, CROSS_VALIDATION)
        parts = find_runs(settings, KIND, parent_run_id=parents[0].info.run_id) if parents else []
        return len(parts) == 2 and steps_done(settings, parts[0].info.run_id) >= 4

    killed(environment, in_second_fold, "cross-validate", "--config", file, "--folds", "0,1")
    return cross_validate(settings=settings, resume="last")


def test_a_cross_validation_is_one_run_with_a_part_for_each_fold(
    settings: Settings, validated: CrossValidation
) -> None:
    parents = find_runs(settings, CROSS_VALIDATION)
    assert [(run.info.run_id, run.info.status) for run in parents] == [(validated.run_id, "FINISHED")]
    trained = find_runs(settings, KIND, parent_run_id=validated.run_id)
    assert sorted(run.data.tags["fold"] for run in trained) == ["0", "1"]  # none was trained a second time
    assert len(find_runs(settings, "evaluate", parent_run_id=validated.run_id)) == 2
    assert {run.info.status for run in trained} == {"FINISHED"}
    assert {version.run_id for version in validated.folds.values()} == {run.info.run_id for run in trained}


def test_each_fold_is_scored_on_what_it_has_not_seen(settings: Settings, validated: CrossValidation) -> None:
    cases = open_workspace(settings).tables.cases()
    scores = mlflow.artifacts.load_text(f"runs:/{validated.run_id}/scores.csv")
    for fold, version in validated.folds.items():
        held_out = set(cases[cases["fold"] == fold]["case_id"])
        assert held_out
        assert not held_out & set(training_cases(version, settings))
        assert all(case_id in scores for case_id in held_out)
    assert mlflow.get_run(validated.run_id).data.metrics["mean_organ_dsc"] == validated.summary["mean_organ_dsc"]


def test_all_folds_together_are_one_model(settings: Settings, validated: CrossValidation) -> None:
    assert CHALLENGER in model_version(CHALLENGER, settings).aliases
    assert model_version(CHALLENGER, settings).version == validated.model.version
    files = members(fetch_checkpoint(validated.model, settings))
    assert [file.stem for file in files] == ["fold_0", "fold_1"]
    for file, version in zip(files, validated.folds.values(), strict=True):
        same(load_file(file), load_file(fetch_checkpoint(version, settings)))
    cases = open_workspace(settings).tables.cases()
    assert set(training_cases(validated.model, settings)) == set(cases[cases["fold"] != TEST]["case_id"])
    report = evaluate(CHALLENGER, settings)  # on the test fold, which no member has seen
    assert set(report.classes["dataset"]) == {"chaos_ct"}
    loaded = mlflow.pyfunc.load_model(validated.model.uri)
    assert loaded.predict(np.full((20, 24, 28), -1000, np.int16)).shape == (1, 20, 24, 28)


def test_folds_are_two_or_more_of_those_there_are() -> None:
    assert folds_to_do([3, 1, 3]) == (1, 3)
    with pytest.raises(ValueError, match=r"fold 7: expected 0 to 4"):
        folds_to_do([0, 7])
    with pytest.raises(ValueError, match="expected two or more"):
        folds_to_do([2])
