"""From an archive to a folder that is whole or not there: one rename makes it visible, a marker tells its origin."""

from __future__ import annotations

import hashlib
from pathlib import Path

from datasets_registry.archives.aside import aside
from datasets_registry.archives.extract import Order, Progress
from datasets_registry.archives.kinds import kind_of
from datasets_registry.archives.limits import Password, Unpacked, UnpackLimits
from datasets_registry.archives.marker import find_unpacked, write_marker
from datasets_registry.archives.process import run_worker
from datasets_registry.durable import sync
from imaging.errors import BadInput

PASSWORD_SETTING = "CTFACTORY_ARCHIVE_PASSWORDS"


def unpack(
    archive: Path,
    folder: Path,
    *,
    limits: UnpackLimits,
    password: str | None = None,
    password_setting: str = PASSWORD_SETTING,
    nested: tuple[str, ...] = (),
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """Unpack `archive` into `folder`, which must not exist yet (or be empty), and return what lies there.

    nested: patterns (`*.zip`) of inner archives to unpack too, each into a folder of its own name. sha256: digest that
    the archive must have. progress: called with packed bytes read and to read.

    All is written into `.NAME.unpacking` beside the folder, forced to the disk and renamed at the end; what a killed
    run left there is removed first, and a second process waits for the first. A folder that came from the same archive
    with the same patterns is left alone. Raises BadInput with code archive_member, archive_limit, archive_password,
    archive_kind, html, truncated, damaged or wrong_digest; FileExistsError where `folder` holds anything else; OSError
    for the disk, room for the unpacked bytes included.
    """
    kind_of(archive, archive.name)
    digest = _digest(archive)
    if sha256 is not None and sha256 != digest:
        raise BadInput(
            "wrong_digest", archive.name, f"SHA-256 {digest}", sha256, "fetch the archive again; do not use this one"
        )
    if (present := find_unpacked(folder, digest, nested, archive)) is not None:
        return present
    with aside(folder) as (partial, lock):
        if (present := find_unpacked(folder, digest, nested, archive)) is not None:
            return present
        order = Order(archive.absolute(), partial, limits, Password(password, password_setting), nested)
        outcome = run_worker(order, lock, progress or _silent)
        tally, inner = outcome["tally"], tuple(outcome["nested"])
        unpacked = Unpacked(folder, tally["files"], tally["bytes"], tally["litter"], inner, digest, fresh=True)
        write_marker(partial, archive, unpacked, nested)
        partial.rename(folder)
        sync(folder.parent)
    return unpacked


def _silent(done: int, total: int) -> None:  # noqa: ARG001  (a Progress that says nothing)
    return


def _digest(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
