"""A published checkpoint becomes a registered version once, from a file or a server, with its licence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden_vectors import authors_file, filled
from source_server import Resource, Scripted, serving, sha256
from typer.testing import CliRunner

from datasets_registry.cards import list_cards
from flows.cli import app
from imaging.errors import BadInput
from models import published
from models.checkpoint import load_model, read_metadata
from models.published import PUBLISHED_CLASSES, TRAINED_ON, Published
from models.settings import ModelSettings
from models.text import PUBLISHED_ENCODER
from models.universal import build_model
from tasks.import_model import import_model
from tasks.models import list_models, show_model
from tasks.notices import told
from tasks.registry import WEIGHTS, checkpoint_digest, fetch_checkpoint, list_versions, training_cases, version_tags
from tasks.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def tiny_is_published() -> Iterator[None]:
    """The smallest network stands in for the authors' of 19 and 62 million weights, whose parity is tested apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(published.PUBLISHED, "tiny", Published("tiny", "tiny.pth", "edges"))
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = filled(build_model(ModelSettings()).state_dict(), 11)
    return authors_file(tmp_path_factory.mktemp("authors") / "tiny.pth", state)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("import"), download_retries=2, download_timeout_s=2)


def test_a_file_is_registered_once_with_what_it_is(settings: Settings, file: Path) -> None:
    heard: list[str] = []
    with told(heard.append):
        first = import_model(str(file), "tiny", settings)
    assert not first.known
    assert first.model.aliases == ("published-tiny",)
    tags = version_tags(first.model, settings)
    assert tags["source"] == "tiny.pth"  # no folder of this machine
    assert tags["source_sha256"] == sha256(file.read_bytes())
    assert tags["licence"] == "CC BY-NC-ND 4.0"
    assert tags["encoder"] == PUBLISHED_ENCODER
    assert tags["classes"].split(",") == list(PUBLISHED_CLASSES)
    assert [text for text in heard if "CC BY-NC-ND 4.0, non-commercial" in text] == heard != []
    again = import_model(str(file.rename(file.with_name("renamed.pth"))), "tiny", settings)
    file.with_name("renamed.pth").rename(file)
    assert again.known
    assert again.model == first.model
    assert len(list_versions(settings)) == 1
    assert not list((settings.workspace / "models").glob("*.safetensors"))  # the registry has the only one


def test_each_use_tells_the_licence_and_the_weights_are_the_authors(settings: Settings, file: Path) -> None:
    version = import_model(str(file), "tiny", settings).model
    heard: list[str] = []
    with told(heard.append):
        checkpoint = fetch_checkpoint(version, settings)
        fetch_checkpoint(version, settings)
    assert len(heard) == 1  # once a command
    assert heard[0].startswith(f"{version.uri}: licence CC BY-NC-ND 4.0")
    model, metadata = load_model(checkpoint)
    assert metadata.extra["licence"] == "CC BY-NC-ND 4.0"
    net = torch.load(file, weights_only=True)["net"]
    assert torch.equal(model.organ_embedding, net["module.organ_embedding"])


def test_a_notice_nobody_listens_to_is_logged(settings: Settings, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    fetch_checkpoint(import_model(str(file), "tiny", settings).model, settings)
    assert "CC BY-NC-ND 4.0" in caplog.text


def test_the_data_sets_it_has_seen_count_as_seen(settings: Settings, file: Path) -> None:
    seen = training_cases(import_model(str(file), "tiny", settings).model, settings)
    assert "lits/*" in seen
    assert {name.removesuffix("/*") for name in seen} == set(TRAINED_ON) <= set(list_cards())


@pytest.fixture
def server(file: Path) -> Iterator[Scripted]:
    with serving() as running:
        running.resources["/weights/tiny.pth"] = Resource(file.read_bytes())
        yield running


def test_a_url_is_fetched_on_from_where_it_was_cut(tmp_path: Path, server: Scripted, file: Path) -> None:
    settings = Settings(workspace=tmp_path, download_retries=2, download_timeout_s=2)
    server.resources["/weights/tiny.pth"].faults = ["cut:200000"]
    url = f"{server.url}/weights/tiny.pth"
    digest = sha256(file.read_bytes())
    first = import_model(f"{url}?token=secret", "tiny", settings, expected_sha256=digest.upper())
    assert [asked.headers.get("Range") for asked in server.asked] == [None, "bytes=200000-"]
    assert version_tags(first.model, settings)["source"] == url  # without the token
    assert read_metadata(fetch_checkpoint(first.model, settings)).extra["source"] == url
    again = import_model(url, "tiny", settings)
    assert (again.known, again.model) == (True, first.model)
    assert len(server.asked) == 2


def test_wrong_content_is_refused_and_nothing_is_registered(tmp_path: Path, server: Scripted, file: Path) -> None:
    settings = Settings(workspace=tmp_path, download_retries=2, download_timeout_s=2)
    url = f"{server.url}/weights/tiny.pth"
    with pytest.raises(BadInput, match="sha256"):
        import_model(url, "tiny", settings, expected_sha256="0" * 64)
    with pytest.raises(ValueError, match="expected 0000"):
        import_model(str(file), "tiny", settings, expected_sha256="0" * 64)
    server.resources["/weights/tiny.pth"].faults = ["login"]
    with pytest.raises(BadInput, match="probably a login page"):
        import_model(url, "tiny", settings)
    page = tmp_path / "tiny.pth"
    page.write_bytes(b"<!DOCTYPE html><html></html>")
    with pytest.raises(BadInput, match="probably a login page"):
        import_model(str(page), "tiny", settings)
    with pytest.raises(FileNotFoundError, match="or its URL"):
        import_model(str(tmp_path / "nowhere.pth"), "tiny", settings)
    with pytest.raises(KeyError, match="nearest: tiny"):
        import_model(str(file), "tiyn", settings)
    assert list_versions(settings) == []


def test_list_and_show_say_what_a_version_is(settings: Settings, file: Path) -> None:
    version = import_model(str(file), "tiny", settings).model
    (row,) = list_models(settings)
    assert row == {
        "model": version.uri,
        "aliases": ["published-tiny"],
        "made_by": "import",
        "backbone": "tiny",
        "classes": 32,
        "licence": "CC BY-NC-ND 4.0",
        "source": "tiny.pth",
    }
    shown = show_model("published-tiny", settings)
    assert shown["classes"] == list(PUBLISHED_CLASSES)
    assert shown["licence_terms"].startswith("non-commercial")
    assert shown["encoder"] == PUBLISHED_ENCODER
    assert shown["source"] == "tiny.pth"
    # all others stand in the checkpoint
    assert shown["tags"] == {WEIGHTS: checkpoint_digest(fetch_checkpoint(version, settings))}


def test_the_commands_print_json_and_tell_the_licence_beside_it(settings: Settings, file: Path) -> None:
    place = ["-w", str(settings.workspace), "--json"]
    imported = CliRunner().invoke(app, ["models", "import", str(file), "--backbone", "tiny", *place])
    assert imported.exit_code == 0, imported.output
    assert json.loads(imported.stdout)["metadata"]["encoder"] == PUBLISHED_ENCODER
    assert "CC BY-NC-ND 4.0" in imported.stderr
    assert "order of the classes" in imported.stderr  # random rows do not pair left and right
    shown = CliRunner().invoke(app, ["models", "show", "published-tiny", *place])
    assert json.loads(shown.stdout)["backbone"] == "tiny"
    assert "non-commercial" in shown.stderr
    listed = CliRunner().invoke(app, ["models", "list", "-w", str(settings.workspace)], env={"COLUMNS": "120"})
    assert "published-tiny" in listed.stdout
    near = CliRunner().invoke(app, ["models", "embeddings", "show", "--model", "published-tiny", *place])
    table = json.loads(near.stdout)
    assert table["encoder"] == PUBLISHED_ENCODER
    assert len(table["cosines"]) == 32
    assert all(Path(picture).stat().st_size > 20_000 for picture in table["pictures"])
