"""What was fetched, when and from where: one JSON line a file in `ledger.jsonl`, appended, never changed.

The first line of a file states its digest for good; a later download that differs stops. Addresses are written
without secrets. Deleting a line is how a person accepts a new version.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from datasets_registry.sources.partial import Digests
from imaging.errors import BadInput

LEDGER = "ledger.jsonl"
How = Literal["downloaded", "placed"]


@dataclass(frozen=True)
class Entry:
    """One file as it was found right. date: UTC, ISO 8601. modified_ns: of the file, so that it is not hashed again."""

    name: str
    how: How
    date: str
    bytes: int
    sha256: str
    md5: str
    url: str
    etag: str | None
    modified_ns: int
    volatile: bool = False


class Ledger:
    """The ledger of one data set; safe for threads, and for one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._entries: dict[str, list[Entry]] = {}
        text = path.read_bytes() if path.is_file() else b""
        # What a killed process left of a last line does not count, and is cut off when the next line is written.
        self._whole = text.rfind(b"\n") + 1
        for number, line in enumerate(text[: self._whole].decode().splitlines(), start=1):
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                raise ValueError(
                    f"{path}, line {number}: not an entry of a ledger ({line[:60]!r}); remove or repair this line"
                ) from None
            self._entries.setdefault(entry.name, []).append(entry)

    def first(self, name: str) -> Entry | None:
        """Return the line that states the digest of `name`; None before its first download."""
        entries = self._entries.get(name)
        return entries[0] if entries else None

    def is_known(self, name: str, path: Path) -> bool:
        """Return whether `path` is the very file that was last recorded as `name`, by size and time of change."""
        entries = self._entries.get(name)
        if not entries or not path.is_file():
            return False
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (entries[-1].bytes, entries[-1].modified_ns)

    def require_same(self, name: str, digests: Digests) -> None:
        """Raise BadInput when `name` was recorded with another digest before."""
        known = self.first(name)
        if known is None or known.volatile or known.sha256 == digests.sha256:
            return
        raise BadInput(
            "changed_upstream",
            name,
            f"sha256 {digests.sha256} ({digests.bytes} bytes)",
            f"sha256 {known.sha256} ({known.bytes} bytes), recorded {known.date}",
            f"the source changed the file; if the new one is right, delete its lines from {self.path} and run again",
        )

    def record(
        self, name: str, path: Path, digests: Digests, *, how: How, url: str, etag: str | None, volatile: bool = False
    ) -> None:
        """Append a line for the file at `path`, durably."""
        entry = Entry(
            name=name,
            how=how,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            bytes=digests.bytes,
            sha256=digests.sha256,
            md5=digests.md5,
            url=url,
            etag=etag,
            modified_ns=path.stat().st_mtime_ns,
            volatile=volatile,
        )
        line = json.dumps(asdict(entry)) + "\n"
        with self._lock:
            with self.path.open("ab") as file:
                file.truncate(self._whole)
                self._whole += file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            self._entries.setdefault(name, []).append(entry)
