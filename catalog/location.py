"""Where a lake lies: a local folder, or a prefix in a bucket of an object store, by URL."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any

_SCHEME = re.compile(r"([a-z][a-z0-9+]*)://", re.IGNORECASE)
SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss")
"""Object stores that both obstore and deltalake open. Their credentials, region and endpoint come from the variables
that each vendor's tools read (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS` ...)."""

RETRY: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
"""A store that is busy or restarting is asked again; one that is not there is given up within a minute."""

_forked = threading.Event()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_forked.set)


@dataclass(frozen=True)
class Location:
    """A place that files are named below. `url`: an absolute local path, or `s3://bucket/prefix`; no slash at the end.

    Equal locations have equal URLs; a location may be sent to other processes.
    """

    url: str

    @classmethod
    def of(cls, root: str | Path | Location) -> Location:
        """Return the location that `root` names; ValueError for a kind of URL that nothing here opens."""
        if isinstance(root, Location):
            return root
        scheme = _SCHEME.match(str(root))
        if scheme is None:
            return cls(str(Path(root).absolute()))
        if scheme[1].lower() == "file":
            return cls(str(Path(str(root)[len(scheme[0]) :]).absolute()))
        if scheme[1].lower() not in SCHEMES:
            raise ValueError(
                f"lake {str(root)!r}: found scheme {scheme[1]!r}, expected a local folder or one of "
                f"{', '.join(f'{name}://' for name in SCHEMES)}; place the lake there"
            )
        return cls(str(root).rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine's file system."""
        return _SCHEME.match(self.url) is None

    @property
    def folder(self) -> Path:
        """The local folder; ValueError for an object store."""
        if not self.is_local:
            raise ValueError(f"{self.url}: found an object store, expected a local folder")
        return Path(self.url)

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type[Location], tuple[str]]:
        return (Location, (self.url,))  # without the opened store, which holds credentials

    @property
    def store(self) -> Any:
        """The obstore store whose keys are paths relative to this location (an object store only).

        RuntimeError in a forked child of a process that opened one: its threads are not there, and it would wait for
        them forever.
        """
        if self.is_local:
            raise ValueError(f"{self.url}: found a local folder, expected an object store; use `folder`")
        if _forked.is_set():
            raise RuntimeError(
                f"{self.url}: asked for in a forked process, which has lost the threads of the object store's client; "
                "start workers by spawn or forkserver"
            )
        return self._store

    @cached_property
    def _store(self) -> Any:
        from obstore.store import from_url  # late: a local lake needs none of it

        _watch_forks()
        return from_url(self.url, retry_config=RETRY)
