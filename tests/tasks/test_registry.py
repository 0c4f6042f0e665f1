"""Versions, their aliases, and that their weights are the ones that were registered; a real SQLite MLflow."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from small_model import checkpoint
from typer.testing import CliRunner

from flows.cli import app
from tasks.notices import told
from tasks.registry import (
    CHAMPION,
    WEIGHTS,
    ModelVersion,
    WeightsChanged,
    checkpoint_digest,
    fetch_checkpoint,
    model_version,
    register_checkpoint,
    set_alias,
    version_tags,
)
from tasks.settings import Settings
from tasks.tracking import mlflow_client, tracked_run


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("registry"))


def registered(file: Path, settings: Settings) -> ModelVersion:
    with tracked_run(settings, "train", kind="train", tags={}):
        return register_checkpoint(file, settings, tags={})


def flip_a_bit(file: Path, place: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_the_digest_is_of_names_lengths_and_bytes_in_the_order_of_names(tmp_path: Path) -> None:
    for name, content in (("b.safetensors", b"xyz"), ("a.safetensors", b"uv"), ("note.txt", b"no weights")):
        (tmp_path / name).write_bytes(content)
    both = sha256(b"a.safetensors\x002\x00uv" + b"b.safetensors\x003\x00xyz").hexdigest()
    assert checkpoint_digest(tmp_path) == both
    assert checkpoint_digest(tmp_path / "a.safetensors") == sha256(b"a.safetensors\x002\x00uv").hexdigest()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.safetensors file"):
        checkpoint_digest(tmp_path / "empty")


def test_one_changed_bit_of_the_stored_weights_is_refused_each_time(settings: Settings, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "model.safetensors")
    version = registered(file, settings)
    set_alias(version, CHAMPION, settings)
    assert version_tags(version, settings)[WEIGHTS] == checkpoint_digest(file)
    stored = fetch_checkpoint(model_version(CHAMPION, settings), settings)
    flip_a_bit(stored)
    for _ in range(2):
        with pytest.raises(
            WeightsChanged, match=rf"universal/{version.version}: its weights .*{checkpoint_digest(file)}"
        ):
            fetch_checkpoint(model_version(CHAMPION, settings), settings)
    flip_a_bit(stored)
    assert fetch_checkpoint(model_version(CHAMPION, settings), settings) == stored


def test_a_version_without_a_digest_is_used_and_said_to_be_unverified(settings: Settings, tmp_path: Path) -> None:
    version = registered(checkpoint(tmp_path / "model.safetensors"), settings)
    mlflow_client(settings).delete_model_version_tag(version.name, str(version.version), WEIGHTS)
    heard: list[str] = []
    with told(heard.append):
        fetch_checkpoint(version, settings)
    assert len(heard) == 1
    assert f"ctfactory models verify {version.version} --record" in heard[0]
    words = ["models", "verify", str(version.version), "--workspace", str(settings.workspace)]
    asked = CliRunner().invoke(app, words)
    assert asked.exit_code != 0
    assert "--record keeps that" in str(asked.exception)
    assert CliRunner().invoke(app, [*words, "--record"]).exit_code == 0
    assert "as registered" in CliRunner().invoke(app, words).output
    flip_a_bit(fetch_checkpoint(version, settings))
    changed = CliRunner().invoke(app, [*words, "--record"])  # what is recorded once is never replaced
    assert isinstance(changed.exception, WeightsChanged)
