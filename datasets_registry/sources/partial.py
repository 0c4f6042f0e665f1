"""The file while it arrives: bytes beside the final name, digests so far, and a note that lets another run go on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets_registry.durable import sync
from datasets_registry.sources.content import HEAD_BYTES

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Version:
    """Which version of which file the bytes belong to. validator: a strong ETag, or a date, for If-Range."""

    origin: str
    validator: str | None
    total: int | None


@dataclass(frozen=True)
class Digests:
    """Size and digests of a whole file."""

    bytes: int
    md5: str
    sha256: str


class PartialFile:
    """`NAME.part` with `NAME.part.json`.

    Only bytes that were forced to the disk count after a crash: the note's `durable` says how many. Within one
    process every byte counts. Used by one thread at a time.
    """

    def __init__(self, target: Path, origin: str, sync_bytes: int) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._origin = origin
        self._sync_bytes = sync_bytes
        self.version: Version | None = None
        self.offset = 0
        self.furthest = 0
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        self._start()
        self._recall()

    def _start(self) -> None:
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self.offset = self._durable = 0

    def _recall(self) -> None:
        """Go on from the note of an earlier run, if it speaks of this file; else from zero."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            version, durable = Version(**note["version"]), int(note["durable"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            version, durable = None, 0
        if version is None or version.origin != self._origin or durable > self.path.stat().st_size:
            self.restart(None)
            return
        self._file.truncate(durable)
        self._file.seek(0)
        while block := self._file.read(READ_BYTES):
            self._md5.update(block)
            self._sha256.update(block)
        self.version, self.offset, self._durable, self.furthest = version, durable, durable, durable

    def restart(self, version: Version | None) -> None:
        """Throw away what there is; the next bytes belong to `version`."""
        self._file.truncate(0)
        self._start()
        self.version = version
        self._note.unlink(missing_ok=True)

    def append(self, block: bytes) -> None:
        """Write `block` at the end."""
        self._file.write(block)
        self._md5.update(block)
        self._sha256.update(block)
        self.offset += len(block)
        self.furthest = max(self.furthest, self.offset)
        if self.offset - self._durable >= self._sync_bytes:
            self.sync()

    def sync(self) -> None:
        """Force the bytes to the disk, then note how many there are."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._durable = self.offset
        if self.version is not None and self.version.validator is not None and self.offset:
            beside = self._note.with_name(self._note.name + ".new")
            beside.write_text(json.dumps({"version": asdict(self.version), "durable": self.offset}), encoding="utf-8")
            beside.replace(self._note)

    def head(self) -> bytes:
        """Return the first bytes, as many as tell the kind of file."""
        self._file.seek(0)
        return self._file.read(HEAD_BYTES)

    def digests(self) -> Digests:
        """Return size and digests of the bytes so far."""
        return Digests(self.offset, self._md5.hexdigest(), self._sha256.hexdigest())

    def publish(self, target: Path) -> None:
        """Give the finished file its name, durably; this is the only moment at which `target` appears."""
        self.sync()
        self._file.close()
        self.path.replace(target)
        self._note.unlink(missing_ok=True)
        sync(target.parent)

    def close(self, *, discard: bool) -> None:
        """Let go of the file; keep the bytes for a later run unless they are wrong."""
        if self._file.closed:
            return
        if not discard:
            self.sync()
        self._file.close()
        if discard or not self._note.exists():
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)


def hash_file(path: Path) -> Digests:
    """Return size and digests of a file on disk."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            md5.update(block)
            sha256.update(block)
            size += len(block)
    return Digests(size, md5.hexdigest(), sha256.hexdigest())
