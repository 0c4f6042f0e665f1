"""Where unpacked bytes go: plain files below one folder, counted against the limits before they are written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO

from datasets_registry.archives import refusals
from datasets_registry.archives.limits import UnpackLimits
from datasets_registry.archives.names import MemberNames
from datasets_registry.litter import is_litter
from imaging.errors import BadInput

FILE_MODE = 0o644
FOLDER_MODE = 0o755
PIECE = 2**20
"""Bytes handed on at a time."""
DISK_RESERVE = 2**28
"""Bytes of the disk left free for others."""


@dataclass
class Tally:
    """What was unpacked so far, an archive and the archives inside it together."""

    files: int = 0
    bytes: int = 0
    litter: int = 0
    members: int = 0


class Sink:
    """The folder that one archive is unpacked into.

    packed_bytes: size of the archive, against which the ratio is held. tick: called after each piece.
    """

    def __init__(
        self,
        folder: Path,
        where: str,
        packed_bytes: int,
        limits: UnpackLimits,
        tally: Tally,
        tick: Callable[[], None],
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.where = where
        self.limits = limits
        self.tally = tally
        self._packed_bytes = packed_bytes
        self._written = 0
        self._tick = tick
        self._names = MemberNames(reserved)

    def expect(self, count: int) -> None:
        """Refuse an archive that declares more bytes than the limit, or than the disk has free (OSError)."""
        if self.tally.bytes + count > self.limits.max_bytes:
            raise refusals.limit(
                self.where, f"{count} bytes declared", f"{self.limits.max_bytes} bytes in all", "max_bytes"
            )
        free = shutil.disk_usage(self.folder).free
        if count + DISK_RESERVE > free:
            raise OSError(
                errno.ENOSPC,
                f"{self.where} unpacks to {count} bytes, and {free} are free where {self.folder} lies; make room for "
                f"{count + DISK_RESERVE} bytes or choose another disk",
            )

    def place(self, name: str, *, is_folder: bool) -> Path | None:
        """Return the path of a member that keeps all rules, None for litter; a folder is created at once."""
        self.tally.members += 1
        if self.tally.members > self.limits.max_members:
            raise refusals.limit(
                self.where, f"more than {self.limits.max_members} members", f"{self.limits.max_members}", "max_members"
            )
        relative = self._names.admit(self.where, name, is_folder=is_folder)
        if is_litter(relative):
            self.tally.litter += not is_folder
            return None
        path = self.folder / relative
        if is_folder:
            self._make_folder(path)
        return path

    def open(self, path: Path | None, name: str, packed_bytes: int | None = None) -> Outlet:
        """Return the writer of one member; with path None (litter) its bytes are counted and dropped.

        packed_bytes: what the member takes in the archive, where the format tells.
        """
        if path is None:
            return Outlet(self, None, name, packed_bytes)
        self._make_folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
        os.fchmod(descriptor, FILE_MODE)
        self.tally.files += 1
        return Outlet(self, os.fdopen(descriptor, "wb", buffering=0), name, packed_bytes)

    def count(self, added: int, name: str, size: int, packed_bytes: int | None) -> None:
        """Count `added` bytes about to be written to member `name`, which then holds `size`; refuse beyond a limit."""
        limits = self.limits
        self.tally.bytes += added
        self._written += added
        if size > limits.max_member_bytes:
            raise refusals.limit(
                self.where,
                f"member {refusals.quoted(name)} of more than {limits.max_member_bytes} bytes",
                f"{limits.max_member_bytes} bytes in one member",
                "max_member_bytes",
            )
        if self.tally.bytes > limits.max_bytes:
            raise refusals.limit(
                self.where, f"more than {limits.max_bytes} bytes", f"{limits.max_bytes} bytes in all", "max_bytes"
            )
        self._check_ratio(self._written, self._packed_bytes, "the archive")
        if packed_bytes is not None:
            self._check_ratio(size, packed_bytes, f"member {refusals.quoted(name)}")
        self._tick()

    def refuse(self, name: str, found: str) -> BadInput:
        """Return the refusal of a member that is neither a plain file nor a folder."""
        return refusals.member(self.where, name, found, "plain files and folders only")

    def _check_ratio(self, unpacked: int, packed: int, what: str) -> None:
        limits = self.limits
        if unpacked > limits.ratio_free_bytes and unpacked > limits.max_ratio * packed:
            raise refusals.limit(
                self.where,
                f"{what} giving more than {unpacked} bytes from {packed}",
                f"{limits.max_ratio:g} times the packed bytes",
                "max_ratio",
            )

    def _make_folder(self, path: Path) -> None:
        if path != self.folder and not path.is_dir():
            self._make_folder(path.parent)
            path.mkdir()
            path.chmod(FOLDER_MODE)


class Outlet:
    """The writer of one member."""

    def __init__(self, sink: Sink, file: BinaryIO | None, name: str, packed_bytes: int | None) -> None:
        self._sink = sink
        self._file = file
        self._name = name
        self._packed_bytes = packed_bytes
        self.size = 0

    def write(self, piece: bytes | bytearray) -> int:
        """Write one piece once it is counted; returns its length."""
        self.size += len(piece)
        self._sink.count(len(piece), self._name, self.size, self._packed_bytes)
        view = memoryview(piece)
        while self._file is not None and view:
            view = view[self._file.write(view) :]
        return len(piece)

    def copy(self, source: IO[bytes]) -> None:
        """Write all that `source` gives."""
        while piece := source.read(PIECE):
            self.write(piece)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Outlet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
