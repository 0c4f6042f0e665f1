from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.settings import Settings, settings_reference

REFERENCE = Path(__file__).parents[2] / "infra" / "settings.md"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_are_local_and_embedded() -> None:
    settings = Settings()
    assert settings.lake.folder == Path("workspace/lake").absolute()
    assert settings.mlflow_uri == f"sqlite:///{Path('workspace/mlflow/mlflow.db').absolute()}"
    assert settings.dask_address is None


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ctfactory.toml").write_text("batch_cases = 3\nspacing_mm = [3.0, 3.0, 5.0]\n")
    monkeypatch.setenv("CTFACTORY_BATCH_CASES", "7")
    settings = Settings()
    assert settings.batch_cases == 7
    assert settings.spacing_mm == (3.0, 3.0, 5.0)


def test_unknown_key_in_the_file_is_an_error() -> None:
    Path("ctfactory.toml").write_text("bach_cases = 3\n")
    with pytest.raises(ValidationError, match="bach_cases"):
        Settings()


def test_reference_page_lists_every_setting() -> None:
    assert settings_reference() in REFERENCE.read_text()


@pytest.mark.parametrize("name", ["cards", "taxonomy"])
def test_own_tables_come_from_the_environment_that_workers_inherit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    Path("ctfactory.toml").write_text(f'{name} = "mine"\n')
    with pytest.raises(ValidationError, match=f"set CTFACTORY_{name.upper()} in the environment"):
        Settings()
    monkeypatch.setenv(f"CTFACTORY_{name.upper()}", "mine")
    assert getattr(Settings(), name) == "mine"


def test_the_lake_may_be_a_folder_or_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTFACTORY_LAKE_ROOT", "s3://bucket/factory")
    assert str(Settings().lake) == "s3://bucket/factory"
    assert Settings(lake_root="elsewhere").lake.folder == Path("elsewhere").absolute()
    with pytest.raises(ValidationError, match="found scheme 'ftp', expected a local folder or one of s3://"):
        Settings(lake_root="ftp://host/lake")


def test_workers_are_sent_no_secret_and_no_relative_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTFACTORY_SYNAPSE_TOKEN", "s3cret")
    monkeypatch.setenv("CTFACTORY_ARCHIVE_PASSWORDS", '{"word": "s3cret"}')
    sent = Settings(workspace=Path("work"), lake_root="lake").for_workers()
    assert b"s3cret" not in pickle.dumps(sent)
    monkeypatch.chdir("/")
    assert sent.workspace == tmp_path / "work"
    assert str(sent.lake) == str(tmp_path / "lake")
