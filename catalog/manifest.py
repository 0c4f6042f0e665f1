"""What files a stored thing consists of, how long they are, and their SHA-256: kept in its table row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.errors import LakeDamage, LakeUnreachable

if TYPE_CHECKING:
    from catalog.files import Files

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


def find_damage(case_id: str, files: Files, case_path: str, manifest: Manifest, read_data: bool) -> list[LakeDamage]:
    """Return what differs between `manifest` and the files of the case at `case_path`; an empty list is a sound case.

    read_data: also compare the SHA-256 of arrays; without it, lengths of all files and the SHA-256 of the small
    `zarr.json` ones are compared.
    """
    damages = []
    sizes = files.sizes([f"{case_path}/{relative}" for relative in manifest.files])
    for relative, entry in manifest.files.items():
        name = f"{case_path}/{relative}"
        size = sizes.get(name)
        try:
            if isinstance(size, OSError):
                raise size
            if size is None:
                raise FileNotFoundError
            if size != entry.size:
                damages.append(LakeDamage(case_id, name, f"{size} bytes", f"{entry.size} bytes"))
            elif (name.endswith(f"/{METADATA_NAME}") or read_data) and (found := files.sha256(name)) != entry.sha256:
                damages.append(LakeDamage(case_id, name, f"SHA-256 {found}", f"SHA-256 {entry.sha256}"))
        except FileNotFoundError:
            damages.append(LakeDamage(case_id, name, "no file", f"{entry.size} bytes"))
        except LakeUnreachable:
            raise
        except OSError as error:
            damages.append(LakeDamage(case_id, name, f"unreadable ({error.strerror})", f"{entry.size} bytes"))
    return damages
