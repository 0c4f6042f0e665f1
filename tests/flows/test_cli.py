"""The command as a user types it, in a process of its own where what matters is the exit code and the message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def _ctfactory(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CTFACTORY_")}
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(root), "COLUMNS": "200"},
        timeout=240,
        check=False,
    )


def test_help_names_every_command_without_loading_torch(tmp_path: Path) -> None:
    result = _ctfactory("--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in (
        "demo",
        "ingest",
        "train",
        "cross-validate",
        "fine-tune",
        "evaluate",
        "promote",
        "pseudo-label",
        "status",
        "serve",
        "models",
    ):
        assert command in result.stdout
    code = "import sys; from flows import cli; sys.exit('torch' in sys.modules or 'prefect' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_status_of_an_empty_workspace_is_empty(tmp_path: Path) -> None:
    result = _ctfactory("status", "--json", "-w", str(tmp_path / "new"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["cases"] == {}
    assert found["models"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ingest", "btcv", "--source", "nowhere"), "nowhere: no such folder"),
        (("ingest", "btcv", "--source", ".", "--cohort", "x"), "--cohort is for `local`"),
        (("datasets", "show", "bctv"), "btcv"),
    ],
)
def test_a_user_error_is_one_line_and_no_traceback(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    result = _ctfactory(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_empty_source_shows_the_layout_expected(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    result = _ctfactory("ingest", "btcv", "--source", "raw", "-w", "ws", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "img" in result.stderr


def test_datasets_are_listed_as_json(tmp_path: Path) -> None:
    result = _ctfactory("datasets", "list", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {row["id"]: row for row in json.loads(result.stdout)}
    assert rows["chaos_ct"]["annotated_classes"] == ["liver"]
