"""The worker process from outside: hand the order over, pass progress on, turn its end into a result or an error."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from datasets_registry.archives import refusals
from datasets_registry.archives.extract import Order, Progress
from imaging.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]


def run_worker(order: Order, lock: int, progress: Progress) -> dict[str, Any]:
    """Run the worker process to its end; return its outcome or raise what it reports.

    It inherits the lock: should this process be killed, nobody else gets the folder before the worker has ended.
    """
    fields = {
        "archive": str(order.archive),
        "folder": str(order.folder),
        "limits": asdict(order.limits),
        "password": {"value": order.password.value, "setting": order.password.setting},
        "nested": order.nested,
    }
    command = [sys.executable, "-m", "datasets_registry.archives.worker"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=environment, pass_fds=(lock,)
        ) as process,
    ):
        try:
            _hand_over(process, json.dumps(fields).encode())
            outcome = _listen(process, order, progress)
            process.wait()
        finally:
            process.kill()  # without effect where it has ended
        if outcome is None:
            raise _crashed(order.archive.name, process.returncode, complaints)
    if "refused" in outcome:
        raise BadInput(**outcome["refused"])
    if "failed" in outcome:
        number, text, name = outcome["failed"]
        raise OSError(number, f"{text} (while unpacking {order.archive.name}; nothing became visible)", name)
    return outcome


def _hand_over(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Give the order on standard input: a password on the command line could be read by every user."""
    if process.stdin is not None:
        process.stdin.write(text)
        process.stdin.close()


def _listen(process: subprocess.Popen[bytes], order: Order, progress: Progress) -> dict[str, Any] | None:
    """Pass progress on until the outcome comes; None when the worker ends without one."""
    for line in _lines(process.stdout, order):
        told: dict[str, Any] = json.loads(line)
        if "progress" not in told:
            return told
        progress(*told["progress"])
    return None


def _lines(stream: IO[bytes] | None, order: Order) -> Iterator[bytes]:
    if stream is None:
        return
    poll = select.poll()
    poll.register(stream, select.POLLIN | select.POLLHUP)
    kept = b""
    while True:
        if not poll.poll(order.limits.stall_seconds * 1000):
            found = f"no byte read for {order.limits.stall_seconds:g} s"
            raise refusals.limit(order.archive.name, found, f"{order.limits.stall_seconds:g} s", "stall_seconds")
        piece = os.read(stream.fileno(), 2**16)
        if not piece:
            return
        *lines, kept = (kept + piece).split(b"\n")
        yield from lines


def _crashed(where: str, code: int, complaints: IO[bytes]) -> Exception:
    """Return the refusal of an archive on which the decoder broke down: data of no form that it knows.

    A worker that somebody killed says nothing about the archive: ChildProcessError.
    """
    if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        return ChildProcessError(
            f"{where}: the unpacking process was killed by signal {-code} (memory of the machine exhausted?); nothing "
            "became visible, run it again"
        )
    complaints.seek(0)
    lines = complaints.read()[-4000:].decode(errors="replace").strip().splitlines()
    return refusals.damaged(where, f"decoding broke off, exit code {code}: {lines[-1] if lines else 'no message'}")
