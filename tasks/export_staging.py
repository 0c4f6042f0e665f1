"""Files of an export: written aside, then moved into place with the list of them last, so that no half one is seen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RECORD = "segmentation.json"
"""Names every file of a case's export with its SHA-256; it is moved into place last."""


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` to write into; it is gone afterwards, whatever happens.

    An OSError while writing, such as a full disk, is raised again with the folder's path.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
    except OSError as error:
        if error.errno is None:
            raise
        place = error.filename or target
        raise OSError(
            error.errno,
            f"{error.strerror}; nothing of {target.name} was made visible, export it again once fixed",
            place,
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def publish(aside: Path, target: Path, record: dict[str, Any]) -> list[Path]:
    """Move what lies in `aside` into `target` and return the files' final paths, the record last.

    The record goes aside first, so that no byte is left to write when the first file moves. Files that an earlier
    export made and this one does not are removed. Other files in `target` are left alone.
    """
    files = sorted(path.relative_to(aside) for path in aside.rglob("*") if path.is_file())
    digests = {}
    for name in files:
        with (aside / name).open("rb") as stream:
            digests[name.as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
    written = aside / RECORD
    with written.open("w", encoding="utf-8") as text:
        text.write(json.dumps({**record, "files": digests}, indent=2) + "\n")
        text.flush()
        os.fsync(text.fileno())
    stale = _files_of(target) - set(digests)
    for folder in {target, *((target / name).parent for name in files)}:
        folder.mkdir(parents=True, exist_ok=True)
    (target / RECORD).unlink(missing_ok=True)  # a set of files that changes is not vouched for
    for gone in stale:
        (target / gone).unlink(missing_ok=True)
    for name in files:
        (aside / name).replace(target / name)
    written.replace(target / RECORD)
    return [*(target / name for name in files), target / RECORD]


def exported_whole(target: Path, key: str) -> bool:
    """Tell whether an export of this key (`export_key` of its record) lies in `target`, every file with its digest."""
    try:
        found = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    if found.get("export_key") != key:
        return False
    for name, digest in found.get("files", {}).items():
        path = target / name
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                return False
    return True


def _files_of(target: Path) -> set[str]:
    try:
        found = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return set()
    names = found.get("files", {})
    return {name for name in names if ".." not in Path(name).parts and not Path(name).is_absolute()}
