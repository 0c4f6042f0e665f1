"""Files below the root of a lake: one way to list, read, write and remove them, in a folder or an object store.

`LocalFiles` is here, `ObjectFiles` in `objects.py`; `files_of` gives the one that a lake needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from catalog import publish
from catalog.location import Location
from catalog.manifest import Manifest, file_sha256

Render = Callable[[str | None], str]
"""Given what a file holds now (None: there is none), what it is to hold."""


@dataclass(frozen=True)
class Found:
    """A file that is there: its length in bytes and when it was last written, by the clock of its store (UTC)."""

    size: int
    modified: datetime


class Files(Protocol):
    """Files by path relative to a lake's root (with `/`). A missing one is a FileNotFoundError.

    An object store that does not answer, or refuses, is a LakeUnreachable.
    """

    is_local: bool

    def list(self, below: str) -> dict[str, Found]:
        """Return every file below the folder `below`, sorted by path; nothing where there is no such folder."""

    def sizes(self, names: Collection[str]) -> dict[str, int | OSError]:
        """Return the length of each of `names` that is a file; the error of one that cannot be looked at."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file."""

    def sha256(self, name: str) -> str:
        """Return the SHA-256 (hex) of a file's bytes, all of which are read."""

    def noted_sha256(self, name: str) -> str | None:
        """Return the SHA-256 that the store keeps with a file since it was written; None where it keeps none."""

    def update(self, name: str, render: Render) -> None:
        """Write what `render` returns, in one step; no other writer's change is lost, none is seen half."""

    def remove(self, name: str) -> None:
        """Remove a file, or all files below a folder. What is gone already is no error."""

    def writing(self, home: str) -> AbstractContextManager[None]:
        """Hold the right to write below the folder `home`, which holds the versions of one case."""

    def staged(self, final: str, name: str) -> AbstractContextManager[Path]:
        """Give an empty local folder in which `name` is written before it becomes `final`."""

    def publish(self, partial: Path, final: str, manifest: Manifest, prefix: str = "") -> None:
        """Make the files of `manifest` in `partial` visible below `final`; their paths begin with `prefix` there."""

    def settle(self, home: str, put: Callable[[], Collection[str]]) -> None:
        """Call `put`, which writes below `home` and returns the paths, until none of them is about to be removed."""

    def emptying(self, home: str) -> AbstractContextManager[datetime | None]:
        """Hold the right to remove below `home`; gives the store's time, None where another process holds it."""


def files_of(location: Location) -> Files:
    """Return the files of the lake at `location`."""
    if location.is_local:
        return LocalFiles(location.folder)
    from catalog.objects import ObjectFiles  # late: a local lake needs no object store's library

    return ObjectFiles(location)


class LocalFiles:
    """Files below a local folder; `writing` and `emptying` hold the kernel's lock on the folder of a case."""

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self, below: str) -> dict[str, Found]:
        """See `Files`."""
        found: dict[str, Found] = {}
        waiting = [below]
        while waiting:
            place = waiting.pop()
            try:
                with os.scandir(self.folder / place) as scanned:
                    entries = list(scanned)
            except FileNotFoundError:
                continue
            for entry in entries:
                name = f"{place}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                    continue
                with suppress(FileNotFoundError):  # renamed or removed by another process since it was listed
                    state = entry.stat()
                    found[name] = Found(state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))
        return dict(sorted(found.items()))

    def sizes(self, names: Collection[str]) -> dict[str, int | OSError]:
        """See `Files`."""
        found: dict[str, int | OSError] = {}
        for name in names:
            path = self.folder / name
            try:
                state = path.stat()
                if path.is_file():
                    found[name] = state.st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                found[name] = error
        return found

    def read(self, name: str) -> bytes:
        """See `Files`."""
        return (self.folder / name).read_bytes()

    def sha256(self, name: str) -> str:
        """See `Files`."""
        return file_sha256(self.folder / name)

    def noted_sha256(self, name: str) -> str | None:  # noqa: ARG002  (a file system notes none)
        """See `Files`."""
        return None

    def update(self, name: str, render: Render) -> None:
        """See `Files`. The caller holds the lock of the case, which keeps other writers out."""
        path = self.folder / name
        earlier = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        publish.write_durably(path, render(earlier))

    def remove(self, name: str) -> None:
        """See `Files`. A folder goes in one step: it is renamed first, so that nobody meets half of it."""
        path = self.folder / name
        if path.is_dir():
            aside = publish.aside(path)
            path.rename(aside)
            shutil.rmtree(aside)
        else:
            path.unlink(missing_ok=True)

    def writing(self, home: str) -> AbstractContextManager[None]:
        """See `Files`."""
        return publish.exclusive(self.folder / home)

    def staged(self, final: str, name: str) -> AbstractContextManager[Path]:
        """See `Files`."""
        return publish.written_aside(self.folder / final, name)

    def publish(self, partial: Path, final: str, manifest: Manifest, prefix: str = "") -> None:
        """See `Files`."""
        publish.publish(partial, self.folder / final / prefix, manifest, prefix)

    def settle(self, home: str, put: Callable[[], Collection[str]]) -> None:  # noqa: ARG002  (the lock is held)
        """See `Files`. The lock of the case keeps those who remove out, so once is enough."""
        put()

    @contextmanager
    def emptying(self, home: str) -> Iterator[datetime | None]:
        """See `Files`. An empty folder is removed at the end."""
        with publish.exclusive(self.folder / home):
            yield datetime.now(UTC)
            if not any((self.folder / home).iterdir()):
                (self.folder / home).rmdir()


def sha256_of(pieces: Iterator[bytes]) -> str:
    """Return the SHA-256 (hex) of `pieces` put together."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
