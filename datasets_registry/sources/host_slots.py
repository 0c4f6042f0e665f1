"""At most so many connections to one host, over all threads and processes of this machine."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.remote import Session

POLL_S = 0.05


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock until it is closed, or None; a killed process lets go by itself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def host_slot(session: Session, url: str) -> Iterator[None]:
    """Hold one of the host's places while the block runs, waiting for a free one."""
    host = re.sub(r"[^A-Za-z0-9.]", "_", urlsplit(url).netloc.rpartition("@")[2])
    folder = session.options.lock_folder
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / f"{host}-{number}.lock" for number in range(session.options.per_host)]
    while True:
        for place in places:
            descriptor = _try_lock(place)
            if descriptor is not None:
                try:
                    yield
                finally:
                    os.close(descriptor)
                return
        if session.stop.wait(POLL_S):
            raise DownloadFailed(host, host, "stopped", "run the command again to go on")


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs. Raises OSError when another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _try_lock(path)
    if descriptor is None:
        raise OSError(f"{path}: {what} is running already; wait for it to end")
    try:
        yield
    finally:
        os.close(descriptor)
