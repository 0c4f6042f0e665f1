"""From a half-written folder to a visible one: lock, write aside, fsync, rename. Local file systems only."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalog.manifest import Manifest, file_sha256
from datasets_registry.durable import sync

PARTIAL = ".partial"
"""How the name of a thing ends that is not whole yet, or not any more."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the only write access to `folder` (created when absent); others wait.

    The lock is the kernel's, on the folder itself: it ends with the process, however that ends, and leaves no file.
    What a killed writer left aside anywhere below is removed first, for nobody else can be writing it now.
    """
    descriptor = _locked(folder)
    try:
        for leftover in list(folder.rglob(aside(Path("*")).name)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """Return an open, locked `folder`: the one of that name now, not one that was removed while we waited for it."""
    while True:
        make_folder(folder)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        os.close(descriptor)


def aside(path: Path) -> Path:
    """Return the path that stands for `path` before it is whole, or while it is removed."""
    return path.with_name(f".{path.name}{PARTIAL}")


@contextmanager
def written_aside(final: Path, name: str) -> Iterator[Path]:
    """Give an empty folder `.<name>.partial` beside `final` to write into, removed unless it was renamed by the end.

    The caller holds the lock of the folder above.
    """
    partial = aside(final.with_name(name))
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Create `folder` and what is missing above it, each entry forced to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync_tree(folder: Path) -> None:
    """Force every file and folder below and including `folder` to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def write_durably(path: Path, text: str) -> None:
    """Write `text` to `path` in one step: the file is either the old one or the whole new one."""
    partial = aside(path)
    partial.write_text(text, encoding="utf-8")
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def publish(partial: Path, final: Path, manifest: Manifest, prefix: str = "") -> None:
    """Make `partial` visible as `final`; where `final` is there already, put right the files that differ from it.

    manifest: of the files in `partial`, their paths beginning with `prefix`. A file is exchanged by one rename, so
    that a reader sees the old bytes or the new ones.
    """
    sync_tree(partial)
    if not final.exists():
        make_folder(final.parent)
        partial.rename(final)
        sync(final.parent)
        return
    for name, entry in manifest.files.items():
        relative = name.removeprefix(prefix)
        target = final / relative
        if target.is_file() and target.stat().st_size == entry.size and file_sha256(target) == entry.sha256:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        (partial / relative).replace(target)
        sync(target.parent)
