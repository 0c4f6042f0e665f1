"""One run a GPU: who comes second waits, says so, and gets it when the first has ended, even by a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.gpu_lock import gpu_lock, named_lock
from tasks.notices import told

HOLDER = """
import sys
from pathlib import Path
from tasks.gpu_lock import named_lock
with named_lock("gpu-test", "GPU test", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_killed_holder_leaves_the_gpu_to_the_one_who_waits_and_was_told(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    heard: list[str] = []
    got, waits = threading.Event(), threading.Event()

    def hear(text: str) -> None:
        heard.append(text)
        waits.set()

    def wait() -> None:
        with told(hear), named_lock("gpu-test", "GPU test", tmp_path):
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert waits.wait(30)
    assert heard == [f"GPU test is in use by process {holder.pid}; waiting until that has ended"]
    assert not got.is_set()
    holder.kill()
    holder.communicate()
    assert got.wait(30)
    waiting.join()


def test_blocks_within_each_other_hold_it_once_and_let_it_go_at_the_end(tmp_path: Path) -> None:
    with named_lock("gpu-nested", "GPU", tmp_path):
        with named_lock("gpu-nested", "GPU", tmp_path):
            pass
        assert not _free(tmp_path)
    assert _free(tmp_path)


def _free(folder: Path) -> bool:
    code = (
        "import fcntl, sys\n"
        "try: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(1)\n"
    )
    return subprocess.run([sys.executable, "-c", code, str(folder / "ctfactory-gpu-nested.lock")]).returncode == 0


def test_a_cpu_needs_no_lock(tmp_path: Path) -> None:
    with gpu_lock("cpu", tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_of_another_user_still_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ctfactory-gpu-theirs.lock").write_text("17")
    import os

    real = os.open

    def refused(path: object, flags: int, *more: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *more)  # type: ignore[arg-type]

    monkeypatch.setattr("tasks.gpu_lock.os.open", refused)
    with named_lock("gpu-theirs", "GPU", tmp_path):
        pass
    assert (tmp_path / "ctfactory-gpu-theirs.lock").read_text() == "17"
