"""`ctfactory fetch` and `ctfactory ingest --source download` with a user's words, against a local server."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from source_server import Resource, Scripted, serving, sha256

from datasets_registry.cards import CARDS
from flows.cli import main
from flows.local_server import prefect_api
from tasks.fetch import fetch
from tasks.miniatures import write_miniature_set
from tasks.settings import Settings

pytestmark = pytest.mark.end_to_end
Command = Callable[..., "Result"]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as running:
        yield running


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ctfactory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The command's own entry point, in this process: test_cli.py shows that it is the same in one of its own.

    Starting Prefect's server is nearly all the time that this file takes, so all commands report to one.
    """
    before, on_termination = dict(os.environ), signal.getsignal(signal.SIGTERM)
    for name in [name for name in before if name.startswith("CTFACTORY_")]:
        monkeypatch.delenv(name)
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv("CTFACTORY_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("CTFACTORY_SPACING_MM", "[12, 12, 12]")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["ctfactory", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return Result(int(ended.value.code or 0), *capsys.readouterr())

    try:
        with prefect_api(Settings(workspace=tmp_path / "server")) as url:
            monkeypatch.setenv("PREFECT_API_URL", url)
            yield run
    finally:
        # The command changes the process it runs in, which is its own otherwise.
        signal.signal(signal.SIGTERM, on_termination)
        monkeypatch.undo()
        for name in set(os.environ) - set(before):
            del os.environ[name]


def _zip(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder).as_posix())
    return packed.getvalue()


def _write_card(cwd: Path, sources: list[dict[str, object]]) -> None:
    card = yaml.safe_load((CARDS / "lits.yaml").read_text())
    (cwd / "cards" / "my_lits.yaml").write_text(yaml.safe_dump({**card, "id": "my_lits", "sources": sources}))


def test_stops_with_the_steps_then_goes_on_to_the_lake(server: Scripted, tmp_path: Path, ctfactory: Command) -> None:
    batch = _zip(write_miniature_set("lits", tmp_path / "written", cases=1, seed=3))
    server.resources["/batch.zip"] = Resource(batch, faults=["cut:3000"])
    labels = {"kind": "manual", "name": "consent.txt", "page": "https://example.org/terms", "access": "registration"}
    sources = [{"kind": "https", "name": "batch.zip", "url": f"{server.url}/batch.zip", "sha256": sha256(batch)}]
    _write_card(tmp_path, [*sources, labels])
    stopped = ctfactory("fetch", "my_lits", "-w", "ws")
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stderr
    assert "open https://example.org/terms" in stopped.stderr
    assert server.asked == []
    (tmp_path / "ws" / "raw" / "my_lits" / "downloads" / "consent.txt").write_text("I agree\n")
    done = ctfactory("ingest", "my_lits", "--source", "download", "-w", "ws", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ingested"] == 1
    again = fetch("my_lits", Settings(workspace=tmp_path / "ws"))
    assert again.ready == ("batch.zip", "consent.txt")
    assert again.nothing_to_do
