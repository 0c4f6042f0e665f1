"""One archive, with the archives inside it that are asked for, into one empty folder. Bounded by limits, not by memory:
`worker.py` runs this in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from datasets_registry.archives import refusals
from datasets_registry.archives.kinds import is_archive_name, kind_of, stem_of
from datasets_registry.archives.limits import Password, UnpackLimits
from datasets_registry.archives.seven_zip_members import extract_7z
from datasets_registry.archives.sink import Sink, Tally
from datasets_registry.archives.tar_members import extract_tar
from datasets_registry.archives.zip_members import extract_zip
from datasets_registry.durable import sync

MARKER = ".unpacked.json"
"""File in the unpacked folder that says which archive it came from."""

Progress = Callable[[int, int], None]
"""Called with the bytes of archives read so far and the bytes known to be read in all."""


@dataclass(frozen=True)
class Order:
    """What to unpack, where to, and within which limits. nested: patterns (`*.zip`) of inner archives."""

    archive: Path
    folder: Path
    limits: UnpackLimits
    password: Password
    nested: tuple[str, ...] = ()


@dataclass
class Extracted:
    """What an extraction wrote."""

    tally: Tally = field(default_factory=Tally)
    nested: list[str] = field(default_factory=list)


def extract(order: Order, progress: Progress) -> Extracted:
    """Unpack the archive of `order` into its folder, which is empty, then the inner archives that its patterns name.

    An inner archive is replaced by a folder of its stem; where everything in it already lies below a folder of that
    name, that level is not doubled. An archive inside an inner archive stays a file. Raises BadInput or OSError; what
    was written until then is the caller's to remove.
    """
    done = Extracted()
    work = _Work(order.archive.stat().st_size, progress)
    _extract_one(order, order.archive, order.folder, order.archive.name, done.tally, work)
    if done.tally.files == 0:
        found = f"no file among {done.tally.members} members, {done.tally.litter} of them litter"
        raise refusals.unsupported(order.archive.name, found, "fetch the archive again")
    inner = [path for path in _files_below(order.folder) if _is_asked_for(path.relative_to(order.folder), order.nested)]
    work.add(sum(path.stat().st_size for path in inner))
    for path in inner:
        relative = path.relative_to(order.folder).as_posix()
        where = f"{order.archive.name}, inner archive {refusals.quoted(relative)}"
        _extract_inner(order, path, where, done.tally, work)
        done.nested.append(relative)
    sync_tree(order.folder, work.tick)
    return done


class _Work:
    """How many bytes of how many archives were read."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._before = 0
        self._current = 0
        self._progress = progress

    def add(self, total: int) -> None:
        self._total += total

    def advance(self, position: int) -> None:
        self._current = max(self._current, position)
        self.tick()

    def finish(self, size: int) -> None:
        self._before += size
        self._current = 0
        self.tick()

    def tick(self) -> None:
        self._progress(min(self._before + self._current, self._total), self._total)


def _extract_one(order: Order, archive: Path, folder: Path, where: str, tally: Tally, work: _Work) -> None:
    kind = kind_of(archive, where)
    size = archive.stat().st_size
    with archive.open("rb") as source:
        reserved = (MARKER,) if folder == order.folder else ()
        sink = Sink(folder, where, size, order.limits, tally, lambda: work.advance(source.tell()), reserved)
        if kind == "zip":
            extract_zip(source, sink, order.password)
        elif kind == "7z":
            extract_7z(source, sink, order.password)
        else:
            extract_tar(source, kind, sink)
    work.finish(size)


def _extract_inner(order: Order, archive: Path, where: str, tally: Tally, work: _Work) -> None:
    """Replace one inner archive by the folder that it unpacks to."""
    target = archive.with_name(stem_of(archive.name))
    if target.exists():
        raise refusals.member(where, archive.name, f"a neighbour already called {target.name}", "room for its folder")
    aside = archive.with_name(f"{archive.name}.unpacking")
    aside.mkdir()
    packed = archive.stat().st_size
    _extract_one(order, archive, aside, where, tally, work)
    archive.unlink()
    tally.files -= 1
    tally.bytes -= packed
    entries = list(aside.iterdir())
    doubled = entries[0] if len(entries) == 1 and entries[0].is_dir() and entries[0].name == target.name else None
    (doubled or aside).rename(target)
    if doubled is not None:
        aside.rmdir()


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _is_asked_for(relative: Path, patterns: tuple[str, ...]) -> bool:
    named = any(fnmatch(relative.as_posix(), pattern) or fnmatch(relative.name, pattern) for pattern in patterns)
    return named and is_archive_name(relative.name)


def sync_tree(folder: Path, tick: Callable[[], None]) -> None:
    """Force every file and folder below `folder`, and itself, to the disk."""
    for current, _, names in os.walk(folder, topdown=False):
        for path in [*(Path(current, name) for name in names), Path(current)]:
            sync(path, follow_links=False)
            tick()
