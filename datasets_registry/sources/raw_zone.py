"""The raw zone of one data set: files as fetched, and the folder that its reader gets.

<folder>/downloads/           as fetched, with ledger.jsonl
<folder>/unpacking/           archives on their way
<folder>/unpacked/            the reader's root; out of sight (unpacked.part) while files move in
<folder>/unpacked.json        which sources are in it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets_registry.sources.partial import hash_file
from datasets_registry.sources.spec import Source

_WORDING = {"note", "confidence", "access", "needed", "variants", "page", "account", "steps", "resource_key", "bytes"}


@dataclass(frozen=True)
class Arrival:
    """A file to put at `target`, relative to the root. movable: it may be moved; a download stays where it is."""

    path: Path
    target: PurePosixPath
    movable: bool


class RawZone:
    """Folders of one data set, and what is in them; for one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads = folder / "downloads"
        self.unpacking = folder / "unpacking"
        self.root = folder / "unpacked"
        self._aside = folder / "unpacked.part"
        self._marker = folder / "unpacked.json"

    @property
    def interrupted(self) -> bool:
        """Whether a run was killed while files moved into the root."""
        return self._aside.is_dir()

    def has(self, source: Source) -> bool:
        """Return whether all of `source` is in the root already.

        Raises FileExistsError when it is there as an earlier card described it: its files would get mixed.
        """
        if not (self.root.is_dir() or self._aside.is_dir()):
            return False
        state = self._read().get(source.name)
        if state is not None and state != meaning(source):
            raise FileExistsError(
                f"{self.root}: holds {source.name} as an earlier card described it; remove {self.root} and "
                f"{self._marker}, and run again (downloads are kept)"
            )
        return state is not None and self.root.is_dir()

    def add(self, source: Source, arrivals: Sequence[Arrival]) -> None:
        """Put the files of one whole source into the root and note that they are there.

        The root is out of sight meanwhile. Raises FileExistsError, with nothing moved, where another file is in the
        way; the same file is fine (an earlier run was killed half-way).
        """
        if not (self.root.is_dir() or self._aside.is_dir()):
            self._marker.unlink(missing_ok=True)
        with self._hidden() as root:
            new = [arrival for arrival in arrivals if not _is_there(arrival, root)]
            try:
                for arrival in new:
                    target = root / arrival.target
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _move_or_link(arrival, target)
            except OSError:
                self.forget_unpacking()
                raise
        state = {**self._read(), source.name: meaning(source)}
        beside = self._marker.with_name(self._marker.name + ".new")
        beside.write_text(json.dumps(state, indent=1), encoding="utf-8")
        beside.replace(self._marker)

    @contextmanager
    def _hidden(self) -> Iterator[Path]:
        if self.root.is_dir():
            self.root.replace(self._aside)
        self._aside.mkdir(exist_ok=True)
        try:
            yield self._aside
        finally:
            self._aside.replace(self.root)

    def forget_unpacking(self) -> None:
        """Remove archives on their way: once files began to move, what is left of them is not whole."""
        shutil.rmtree(self.unpacking, ignore_errors=True)

    def _read(self) -> dict[str, str]:
        try:
            state: dict[str, str] = json.loads(self._marker.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return state


def meaning(source: Source) -> str:
    """Return a digest of what decides which files a source brings and where; wording and access stay out."""
    facts = source.model_dump(mode="json", exclude=_WORDING)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def arrivals_below(folder: Path, place: str | None, skip: str) -> list[Arrival]:
    """Return every file of an unpacked archive with its place in the root; the file `skip` at the top is left out.

    With a place, the one folder that may wrap the content is dropped: archives of one set differ in having it.
    """
    top = [path for path in folder.iterdir() if path.name != skip]
    if place is not None and len(top) == 1 and top[0].is_dir():
        folder = top[0]
    return [
        Arrival(path, PurePosixPath(place or ".") / path.relative_to(folder).as_posix(), movable=True)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (path.name == skip and path.parent == folder)
    ]


def _is_there(arrival: Arrival, root: Path) -> bool:
    target = root / arrival.target
    if not target.exists():
        return False
    if target.is_file() and (target.samefile(arrival.path) or _equal(target, arrival.path)):
        return True
    raise FileExistsError(
        f"{target}: another file is there already, and {arrival.path} belongs in its place; two sources of the card "
        "bring the same name: remove the folder and fetch only one of them"
    )


def _equal(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and hash_file(one) == hash_file(other)


def _move_or_link(arrival: Arrival, target: Path) -> None:
    """Move what may be moved; give a download a second name, or copy it where the disk cannot do that."""
    if arrival.movable:
        arrival.path.replace(target)
        return
    try:
        os.link(arrival.path, target)
    except OSError:
        beside = target.with_name(target.name + ".new")
        shutil.copyfile(arrival.path, beside)
        beside.replace(target)
