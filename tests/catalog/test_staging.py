"""Folders in which cases are written for an object store: one's own goes at the end, a killed writer's at the next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.staging import PREFIX, staging_folder

WRITER = """
import sys
from catalog.staging import staging_folder

with staging_folder() as folder:
    (folder / "0").mkdir()
    (folder / "0" / "zarr.json").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def writer(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that stages a case and waits; return it and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_killed_writers_folder_goes_and_a_living_ones_stays(temporary: Path) -> None:
    (killed, left), (living, held) = writer(temporary), writer(temporary)
    try:
        assert left.parent == held.parent == temporary
        killed.kill()
        killed.wait()
        assert (left / "0" / "zarr.json").is_file()
        with staging_folder() as ours:
            assert sorted(temporary.iterdir()) == sorted([held, ours])
            assert (held / "0" / "zarr.json").read_text() == "half"
    finally:
        living.communicate("")
    assert list(temporary.iterdir()) == []


def test_nothing_else_is_touched(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / "kept").touch()
    (temporary / f"{PREFIX}link").symlink_to(temporary / "elsewhere")
    (temporary / f"{PREFIX}file").touch()
    (temporary / "ctfactory-own").mkdir()
    before = sorted(temporary.rglob("*"))
    with staging_folder():
        pass
    assert sorted(temporary.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder another user's")
def test_another_users_folder_stays(temporary: Path) -> None:
    theirs = temporary / f"{PREFIX}theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    with staging_folder():
        pass
    assert theirs.is_dir()


def test_two_in_one_process_do_not_take_each_others(temporary: Path) -> None:
    with staging_folder() as first, staging_folder() as second:
        assert first.is_dir()
        assert first != second
    assert list(temporary.iterdir()) == []
