"""The Prefect API a command talks to: the one of `PREFECT_API_URL`, or a local server while the command runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.environment import QUIET
from tasks.settings import Settings

# A first start migrates an empty SQLite database: about 20 s on two cores, longer on a busy machine.
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 20


@contextmanager
def prefect_api(settings: Settings) -> Iterator[str]:
    """Yield the URL of a Prefect API that flows run inside the block report to.

    With `PREFECT_API_URL` in the environment nothing is started. Otherwise a server is started on a free loopback
    port, its database in the settings' Prefect folder, and stopped at the end of the block, whatever happens in it.
    """
    if given := os.environ.get("PREFECT_API_URL"):
        yield given
        return
    home = settings.prefect_folder
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = home / "server.log"
    with log.open("ab") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": url, **QUIET},
            start_new_session=True,
        )
        try:
            _wait_until_healthy(server, url, log)
            with temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: str(home)}):
                try:
                    yield url
                finally:
                    _send_what_waits()
        finally:
            _stop(server)


def _send_what_waits() -> None:
    """Send queued log lines and events while there is a server: at exit they would be retried for over a minute."""
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=STOP_TIMEOUT_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"Prefect's local server ended with exit code {server.returncode}; see {log}")
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"Prefect's local server did not answer at {url} within {START_TIMEOUT_S} s; see {log}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        # The server's own children are in its session: the group ends with it.
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
