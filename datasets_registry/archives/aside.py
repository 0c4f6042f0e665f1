"""The folder that is written aside: locked, empty at the start, gone or renamed at the end."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(folder: Path) -> Iterator[tuple[Path, int]]:
    """Give an empty folder beside `folder` and the descriptor of its lock; it is removed unless renamed by the end.

    The lock lies on the folder itself and ends with the process, so a leftover without a holder is a killed run's.
    """
    partial = folder.with_name(f".{folder.name}.unpacking")
    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(lock, partial):
                break
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # the one before us renamed or removed it: take the new one
    try:
        for entry in partial.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        yield partial, lock
    finally:
        if _is_at(lock, partial):
            shutil.rmtree(partial)
        os.close(lock)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
