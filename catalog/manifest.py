"""What files a stored thing consists of, how long they are, and their SHA-256: kept in its table row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

METADATA_NAME = "zarr.json"


@dataclass(frozen=True)
class FileEntry:
    """One file: its length in bytes and its SHA-256 (hex)."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Files of one case or annotation, by path relative to the case's folder (with `/`)."""

    files: Mapping[str, FileEntry]

    def to_json(self) -> str:
        """Return one line of canonical JSON: `{"files": {path: [bytes, sha256]}}`."""
        files = {path: [entry.size, entry.sha256] for path, entry in sorted(self.files.items())}
        return json.dumps({"files": files}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Return the manifest that `to_json` wrote; ValueError where the text is not one."""
        try:
            files = json.loads(text)["files"]
            return cls({path: FileEntry(int(size), str(sha256)) for path, (size, sha256) in files.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"manifest: found {text[:80]!r}, expected the JSON that a case's row holds") from error

    def part(self, prefix: str) -> Manifest:
        """Return the files whose path begins with `prefix`."""
        return Manifest({path: entry for path, entry in self.files.items() if path.startswith(prefix)})

    @property
    def bytes(self) -> int:
        """Length of all files together."""
        return sum(entry.size for entry in self.files.values())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def build_manifest(folder: Path, prefix: str = "", leave_out: tuple[str, ...] = ()) -> Manifest:
    """Return the manifest of every file below `folder`, with `prefix` put before each path.

    leave_out: paths relative to `folder` that are rewritten later and so do not belong to the manifest.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative not in leave_out:
            files[prefix + relative] = FileEntry(path.stat().st_size, file_sha256(path))
    return Manifest(files)
