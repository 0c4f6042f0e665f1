"""The files of a lake in an object store (S3, GCS, Azure): whole objects, conditional writes, no locks, no renames.

Names are content-addressed and bytes deterministic, so two writers of one thing put the same objects. What changes in
place, the list of a case's labels and the notes, is written on condition that nobody else wrote it meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from catalog.errors import LakeUnreachable
from catalog.files import Found, Render, sha256_of
from catalog.location import Location
from catalog.manifest import METADATA_NAME, Manifest
from catalog.staging import staging_folder

UPLOADS = 8
"""Objects of one case put at a time."""

ATTEMPTS = 50
"""Conditional writes tried before giving up; one is lost only when another writer was first."""

REMOVING = ".removing"
"""Object below a case's folder while its garbage is removed."""

STALE = timedelta(minutes=10)
"""Age at which that object is what a killed process left."""

POLL_S = 0.2


class ObjectFiles:
    """Files below a prefix of a bucket."""

    is_local = False

    def __init__(self, location: Location) -> None:
        self.location = location

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        """Give the store; its errors leave with the URL, the reason in one line, and what to look at."""
        try:
            yield self.location.store
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise LakeUnreachable(f"{self.location.url}/{what}", "no such bucket") from None
            raise FileNotFoundError(f"{self.location.url}/{what}: no such object") from None
        except BaseError as error:
            raise LakeUnreachable(f"{self.location.url}/{what}", reason_of(error)) from None

    def ranges(self, name: str, parts: Sequence[Sequence[int]]) -> Sequence[bytes]:
        """Return parts of an object, each by its offset and length; parts near one another come by one request."""
        offsets, lengths = ([part[at] for part in parts] for at in (0, 1))
        with self._asking(name) as store:
            found = store.get_ranges(name, starts=offsets, lengths=lengths)
        return [bytes(part) for part in found]

    def list(self, below: str) -> dict[str, Found]:
        """See `Files`."""
        with self._asking(below) as store:
            found = {
                str(entry["path"]): Found(entry["size"], entry["last_modified"])
                for page in store.list(below, chunk_size=1000)
                for entry in page
            }
        return dict(sorted(found.items()))

    def sizes(self, names: Collection[str]) -> dict[str, int | OSError]:
        """See `Files`. One listing of the folder that holds them all."""
        if not names:
            return {}
        there = self.list(os.path.commonpath([name.rsplit("/", 1)[0] for name in names]))
        return {name: there[name].size for name in names if name in there}

    def read(self, name: str) -> bytes:
        """See `Files`."""
        with self._asking(name) as store:
            return bytes(store.get(name).bytes())

    def sha256(self, name: str) -> str:
        """See `Files`."""
        with self._asking(name) as store:
            return sha256_of(bytes(piece) for piece in store.get(name).stream())

    def noted_sha256(self, name: str) -> str | None:
        """See `Files`. It is put with the object, and goes where the object is copied or moved."""
        with self._asking(name) as store:
            noted = store.get(name, options={"head": True}).attributes.get("sha256")
        return None if noted is None else str(noted)

    def update(self, name: str, render: Render) -> None:
        """See `Files`. LakeUnreachable where other writers are first again and again."""
        for _ in range(ATTEMPTS):
            mode: Any = "create"
            earlier: str | None = None
            try:
                with self._asking(name) as store:
                    found = store.get(name)
                    earlier, mode = (
                        bytes(found.bytes()).decode("utf-8", errors="replace"),
                        {"e_tag": found.meta["e_tag"]},
                    )
            except FileNotFoundError:
                pass
            try:
                with self._asking(name) as store:
                    store.put(name, render(earlier).encode(), mode=mode)
                return
            except (AlreadyExistsError, PreconditionError):
                time.sleep(POLL_S / 10)
        raise LakeUnreachable(f"{self.location.url}/{name}", f"{ATTEMPTS} writes lost against other writers")

    def remove(self, name: str) -> None:
        """See `Files`."""
        names = list(self.list(name)) or [name]
        with self._asking(name) as store:
            store.delete(names)

    def writing(self, home: str) -> AbstractContextManager[None]:  # noqa: ARG002  (nobody is kept out)
        """See `Files`."""
        return nullcontext()

    def staged(self, final: str, name: str) -> AbstractContextManager[Path]:  # noqa: ARG002  (nothing lies beside)
        """See `Files`: in the folder for temporary files (`TMPDIR`)."""
        return staging_folder()

    def publish(self, partial: Path, final: str, manifest: Manifest, prefix: str = "") -> None:
        """See `Files`. The group's own metadata comes last: who sees it finds the rest."""

        def put(name: str) -> None:
            path = partial / name.removeprefix(prefix)
            with self._asking(f"{final}/{name}") as store:
                store.put(f"{final}/{name}", path, attributes={"sha256": manifest.files[name].sha256})

        last = f"{prefix}{METADATA_NAME}"
        with ThreadPoolExecutor(UPLOADS) as threads:
            list(threads.map(put, [name for name in manifest.files if name != last]))
        put(last)

    def settle(self, home: str, put: Callable[[], Collection[str]]) -> None:
        """See `Files`.

        Whoever removes puts a mark first, looks at the ages again, and takes the mark away last. So objects that are
        all there while there is no mark are young in the eyes of everybody who puts one later.
        """
        while True:
            names = put()
            there = self.list(home)
            mark = there.pop(f"{home}/{REMOVING}", None)
            if mark is None and all(name in there for name in names):
                return
            if mark is not None and max(found.modified for found in there.values()) - mark.modified > STALE:
                self.remove(f"{home}/{REMOVING}")
            time.sleep(POLL_S)

    @contextmanager
    def emptying(self, home: str) -> Iterator[datetime | None]:
        """See `Files`."""
        name = f"{home}/{REMOVING}"
        try:
            with self._asking(name) as store:
                store.put(name, b"", mode="create")
        except AlreadyExistsError:
            there = self.list(home).get(name)
            if there is None or datetime.now(UTC) - there.modified < STALE:
                yield None
                return
            with self._asking(name) as store:
                store.put(name, b"")
        try:
            with self._asking(name) as store:
                now = store.head(name)["last_modified"]
            yield now
        finally:
            self.remove(name)


def reason_of(error: Exception) -> str:
    """Return the reason that an object store gave, in one line, without the library's own traces."""
    text = str(error).split("\n\nDebug source")[0]
    return " ".join(text.split())[:400]
