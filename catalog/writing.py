"""Failures of the disk, told so that a person can act: where, how much was to be written, how much room there is."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalake.exceptions import CommitFailedError, DeltaError

from catalog.errors import LakeDamage, LakeUnreachable, WriteFailed

_RUST = re.compile(r"\(os error (\d+)\)")


@contextmanager
def naming_the_write(place: str | Path, size: int) -> Iterator[None]:
    """Turn an error of the operating system that leaves the block into a `WriteFailed`; others pass as they are.

    place: what is being written. size: its bytes, before compression. zarr and zarrs raise the bare cause, without a
    path and partly as RuntimeError, deltalake as DeltaError.
    """
    try:
        yield
    except (LakeDamage, LakeUnreachable, CommitFailedError, WriteFailed):
        raise
    except (OSError, RuntimeError, DeltaError) as error:
        number = _os_error(error)
        if number is None:
            raise
        raise WriteFailed(
            number,
            f"{place}: {os.strerror(number)}, while writing {size} bytes{_room(place)}; nothing half-written became "
            "visible: put the cause right and run the same again",
        ) from error


def _os_error(error: BaseException) -> int | None:
    """Return the errno behind an error of Python or of a Rust library; None where the system did not refuse."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _RUST.search(str(error))
    return int(found[1]) if found else None


def _room(place: str | Path) -> str:
    """Return how much is free where `place` lies, as words; nothing for an object store."""
    if "://" in str(place):
        return ""
    folder = Path(place).absolute()
    try:
        while not folder.is_dir():
            folder = folder.parent
        return f" to a disk with {shutil.disk_usage(folder).free} bytes free"
    except OSError:
        return ""
