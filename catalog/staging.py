"""A temporary folder to write a case in before it goes to an object store; what a killed writer left goes next time."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "ctfactory-staged-"


@contextmanager
def staging_folder() -> Iterator[Path]:
    """Give an empty folder below `TMPDIR`, removed at the end; folders there that nobody holds any more go first.

    A folder is held by the kernel's lock on it, which ends with the process, however that ends: no process number has
    to be believed. Only real folders of this user's are touched. Where the file system knows no locks, none is removed.
    """
    _remove_left(Path(tempfile.gettempdir()))
    folder, descriptor = _held_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _held_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            descriptor = _opened(folder)
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), folder.lstat()):
                    return folder, descriptor
            os.close(descriptor)
        # taken for a dead writer's and removed before it was locked


def _remove_left(temporary: Path) -> None:
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, a link, held, or removed by another writer meanwhile
            if folder.lstat().st_uid != os.geteuid():
                continue
            descriptor = _opened(folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
