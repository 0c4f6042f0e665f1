"""A miniature set ingested into a lake by URL and into a folder; `ctfactory lake` on it as a user would call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from catalog.errors import LakeUnreachable
from datasets_registry.miniatures import write_miniature
from flows.cli_lake import lake_app
from tasks.ingest import ingest_batch, list_source
from tasks.patches import training_source
from tasks.settings import Settings
from tasks.splits import deal_new_cases
from tasks.workspace import open_workspace


def ingest(settings: Settings, folder: Path, cases: int) -> list[str]:
    """Ingest `cases` miniatures of one set, as the flow does, and return what became of them."""
    if not folder.exists():
        write_miniature("btcv", folder, cases=cases, seed=1, truth_folder=folder.with_name("truth"))
    return [outcome.outcome for outcome in ingest_batch(list_source("btcv", folder, settings).requests, settings)]


def run(*words: str, at: Path, code: int = 0) -> str:
    result = CliRunner().invoke(lake_app, [*words, "-w", str(at)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ingested")
    settings = Settings(workspace=folder / "work", spacing_mm=(6.0, 6.0, 6.0))
    assert ingest(settings, folder / "raw", 2) == ["ingested", "ingested"]
    return settings.workspace


@pytest.fixture
def workspace(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("flows.console.console._width", 160)
    return Path(shutil.copytree(ingested, tmp_path / "work"))


def test_a_miniature_set_goes_into_a_lake_by_url_and_comes_out_as_patches(
    tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.console.console._width", 160)
    monkeypatch.setenv("CTFACTORY_LAKE_ROOT", s3_root)
    far = Settings(workspace=tmp_path / "work", spacing_mm=(6.0, 6.0, 6.0))
    near = Settings(workspace=tmp_path / "near", lake_root=None, spacing_mm=(6.0, 6.0, 6.0))
    assert near.lake.is_local
    for settings in (far, near):
        assert ingest(settings, tmp_path / "raw", 2) == ["ingested", "ingested"]
    assert ingest(far, tmp_path / "raw", 2) == ["unchanged", "unchanged"]
    for settings in (far, near):
        assert deal_new_cases(open_workspace(settings)) == 2
    sources = [training_source(open_workspace(settings)) for settings in (far, near)]
    case = sources[1].cases()[0]
    box = ((-3, 10, 5), (24, 24, 24))
    for ours, expected in zip(sources[0].read(case.case_id, *box), sources[1].read(case.case_id, *box), strict=True):
        np.testing.assert_array_equal(ours, expected)
    files = [open_workspace(settings).lake.files for settings in (far, near)]
    assert {name: files[0].sha256(name) for name in files[0].list("volumes")} == {
        name: files[1].sha256(name) for name in files[1].list("volumes")
    }
    assert "2 cases verified, no damage" in run("verify", "--read-data", at=far.workspace)
    assert "0 orphans removed, 0 bytes" in run("gc", at=far.workspace)
    assert s3_root in run("stats", at=far.workspace)


def test_verify_names_damage_and_ends_with_the_code_for_it(workspace: Path) -> None:
    assert "2 cases verified, no damage" in run("verify", at=workspace)
    shard = next((workspace / "lake").rglob("0/c/0/0/0"))
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    assert "no damage" in run("verify", at=workspace)
    file = shard.relative_to(workspace / "lake").as_posix()
    found: list[dict[str, Any]] = json.loads(run("verify", "--read-data", "--json", at=workspace, code=3))
    assert [item["file"] for item in found] == [file]
    told = run("verify", "--sample", "100%", "--seed", "a", at=workspace, code=3)
    assert "read 100.0% of the files, chosen by --seed a" in told


def test_gc_shows_removes_and_finds_nothing_more(workspace: Path) -> None:
    lost = workspace / "lake/volumes/btcv/lost/0123456789ab.manifest.json"
    lost.parent.mkdir()
    lost.write_text("{}")
    assert "0 orphans removed" in run("gc", at=workspace)  # younger than a day
    told = run("gc", "--grace", "0s", "--dry-run", at=workspace)
    assert "volumes/btcv/lost/0123456789ab.zarr" in told
    assert "1 orphans would be removed, 2 bytes" in told
    assert lost.exists()
    assert "1 orphans removed, 2 bytes" in run("gc", "--grace", "0s", at=workspace)
    assert not lost.parent.exists()
    assert "0 orphans removed, 0 bytes" in run("gc", "--grace", "0s", at=workspace)


def test_stats_name_cases_arrays_and_bytes(workspace: Path) -> None:
    found = json.loads(run("stats", "--json", at=workspace))
    assert [(item["dataset"], item["cases"], item["arrays"]) for item in found["datasets"]] == [("btcv", 2, 12)]
    assert found["datasets"][0]["image_ratio"] > 1
    assert found["table_bytes"] > 0
    assert "image ratio" in run("stats", at=workspace)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("verify", "--sample", "5 apples"), "expected a share above 0 and up to 100%, such as 5% or 0.05"),
        (("verify", "--sample", "0%"), "expected a share above 0"),
        (("verify", "--sample", "5%", "--read-data"), "leave --sample out"),
        (("verify", "--seed", "a"), "give --sample 5% too"),
        (("gc", "--grace", "24"), "expected a number and one of s, m, h, d"),
    ],
)
def test_wrong_options_are_told(workspace: Path, words: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run(*words, at=workspace)


def test_a_place_without_a_lake_is_told_and_left_alone(tmp_path: Path) -> None:
    for command in ("verify", "gc", "stats"):
        with pytest.raises(FileNotFoundError, match=r"no tables in .*ctfactory ingest"):
            run(command, at=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_gc_does_not_take_a_lake_whose_tables_are_elsewhere_for_garbage(workspace: Path) -> None:
    (workspace / "lake/tables").rename(workspace / "elsewhere")
    with pytest.raises(FileNotFoundError, match="no tables in"):
        run("gc", "--grace", "0s", at=workspace)
    assert open_workspace(Settings(workspace=workspace)).tables.cases().empty  # which makes empty ones
    with pytest.raises(ValueError, match="hold no case, but the lake holds 2 orphans"):
        run("gc", "--grace", "0s", at=workspace)
    assert len(list((workspace / "lake/volumes").rglob("0/c/0/0/0"))) == 4  # images and labels


@pytest.mark.parametrize("command", ["verify", "gc", "stats"])
def test_a_wrong_bucket_is_told_in_one_line(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("CTFACTORY_LAKE_ROOT", "s3://no-such-bucket/lake")
    with pytest.raises(LakeUnreachable, match=r"s3://no-such-bucket/lake.*check that the bucket exists") as told:
        run(command, at=tmp_path)
    assert "\n" not in str(told.value)
