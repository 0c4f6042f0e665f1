"""A local S3 server (moto) in a process of its own, for lakes in an object store.

In this process it would hang: the Rust codec pipeline waits for a reply without letting other threads run.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

START_TIMEOUT_S = 60


@contextmanager
def s3_server() -> Iterator[str]:
    """Yield the address of an empty server on loopback; it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(server, url)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"moto ended with exit code {server.returncode}")
        try:
            httpx.get(f"{url}/moto-api/", timeout=2)
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise TimeoutError(f"moto did not answer at {url} within {START_TIMEOUT_S} s")


def make_bucket(url: str, name: str) -> None:
    """Create a bucket on the server at `url`."""
    httpx.put(f"{url}/{name}", timeout=10).raise_for_status()
