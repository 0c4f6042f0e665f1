"""What every MLflow run says about where it comes from, and how runs are found again; a real SQLite MLflow."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from tasks import provenance
from tasks.provenance import code_version, environment_lock
from tasks.settings import Settings
from tasks.tracking import experiment_name, find_runs, html_table, log_table, mlflow_client, tracked_run


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("tracking"))


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    return subprocess.run(
        ["git", *named, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_run_says_which_code_packages_and_tables_it_came_from(settings: Settings) -> None:
    versions = {"cases": 3, "labels": 5}
    with tracked_run(settings, "one", kind="evaluate", tags={"none": None}, table_versions=versions) as run_id:
        pass
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["table_versions"] == '{"cases": 3, "labels": 5}'
    assert run.data.params == {"table_version.cases": "3", "table_version.labels": "5"}
    assert run.data.tags["code_version"] == importlib.metadata.version("ct-label-factory")
    assert "none" not in run.data.tags
    lock = mlflow.artifacts.load_text(f"runs:/{run_id}/requirements.lock.txt")
    assert f"\nnumpy=={np.__version__}\n" in lock
    assert f"\nmlflow=={mlflow.__version__}\n" in lock


def test_the_lock_names_every_installed_package_once_and_no_place() -> None:
    lines = environment_lock().splitlines()[1:]
    names = [line.removeprefix("# ").split("==")[0].lower() for line in lines]
    assert names == sorted(set(names))
    assert len(names) == len({found.metadata["Name"].lower() for found in importlib.metadata.distributions()})
    assert str(Path(sys.prefix)) not in environment_lock()


def test_the_commit_is_that_of_our_checkout_and_dirty_once_the_code_is_changed(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "provenance.py").write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("not code")
    found = code_version(tmp_path)
    assert (found.commit, found.dirty) == (head, False)
    (tmp_path / "tasks" / "provenance.py").write_text("two")
    assert code_version(tmp_path).dirty is True
    assert code_version(tmp_path).tags()["code_dirty"] == "true"


def test_code_installed_inside_another_checkout_does_not_take_its_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.txt").write_text("x")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "theirs")
    inside = tmp_path / "site-packages"
    (inside / "tasks").mkdir(parents=True)
    (inside / "tasks" / "provenance.py").write_text(Path(provenance.__file__).read_text())
    found = code_version(inside)
    assert found.commit != git(tmp_path, "rev-parse", "HEAD")
    assert found.dirty is None
    assert found.version == importlib.metadata.version("ct-label-factory")


def test_each_kind_has_its_experiment_and_parts_lie_in_that_of_their_parent(settings: Settings) -> None:
    with (
        tracked_run(settings, "all", kind="cross-validation", tags={}) as parent,
        tracked_run(settings, "fold 0", kind="train", tags={"fold": "0"}, parent_run_id=parent) as child,
    ):
        pass
    with tracked_run(settings, "alone", kind="train", tags={}) as alone:
        pass
    client = mlflow_client(settings)
    names = {run: client.get_experiment(client.get_run(run).info.experiment_id).name for run in (parent, child, alone)}
    assert names[parent] == names[child] == experiment_name(settings, "cross-validation")
    assert names[alone] == experiment_name(settings, "train")
    assert [run.info.run_id for run in find_runs(settings, "train")] == [alone, child]
    assert [run.info.run_id for run in find_runs(settings, "train", parent_run_id=parent)] == [child]
    assert [run.info.run_id for run in find_runs(settings, "train", tags={"fold": "0"})] == [child]
    other = settings.model_copy(update={"experiment": "ct-label"})
    assert find_runs(other, "train") == []  # a name that begins alike is another factory


def test_a_run_that_raises_is_marked_failed(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), tracked_run(settings, "bad", kind="train", tags={}) as run_id:
        raise ZeroDivisionError
    assert mlflow.get_run(run_id).info.status == "FAILED"
    assert mlflow.active_run() is None


def test_a_table_is_logged_for_programs_and_for_the_eye(settings: Settings) -> None:
    table = pd.DataFrame({"class_name": ["liver", "<b>"], "dsc": [0.91234, np.nan], "cases": [3, 0]})
    with tracked_run(settings, "table", kind="evaluate", tags={}) as run_id:
        log_table(table, "classes")
    stored = pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/classes.parquet"))
    pd.testing.assert_frame_equal(stored, table)
    page = mlflow.artifacts.load_text(f"runs:/{run_id}/classes.html")
    assert page == html_table(table, "classes")
    assert "<td>0.912</td>" in page
    assert "<td>–</td>" in page
    assert "<td>&lt;b&gt;</td>" in page
