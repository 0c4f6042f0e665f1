"""The members of a 7z archive, through py7zr's writer factory: py7zr decodes, our sink counts and writes."""

from __future__ import annotations

import lzma
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import py7zr
from py7zr.exceptions import ArchiveError, PasswordRequired
from py7zr.io import Py7zIO, WriterFactory

from datasets_registry.archives import refusals
from datasets_registry.archives.limits import Password
from datasets_registry.archives.sink import Outlet, Sink
from imaging.errors import BadInput

DAMAGE = (ArchiveError, lzma.LZMAError, zlib.error, EOFError, struct.error)
NONSENSE = (*DAMAGE, TypeError, ValueError, LookupError, AttributeError, OverflowError, MemoryError)
"""What py7zr may raise on a header that a wrong password turned into random bytes."""
HEADER_BYTES = 32


def extract_7z(source: BinaryIO, sink: Sink, password: Password) -> None:
    """Unpack a whole 7z archive into `sink`.

    All names, kinds and declared sizes are checked before the first byte is written. Raises BadInput for a member
    that breaks a rule, a missing or wrong password, an unknown method, a cut file and damage (py7zr compares CRCs).
    """
    _check_whole(source, sink.where)
    archive, encrypted = _open(source, sink, password)
    with archive:
        targets = _place_all(archive, sink)
        writers = _Writers(sink, targets)
        try:
            archive.extractall(path=sink.folder, factory=writers)
        except DAMAGE as error:
            raise _refusal(sink, error, password, encrypted) from error
        finally:
            writers.close()
        if left := set(targets) - writers.opened:
            raise refusals.damaged(sink.where, f"{len(left)} members without data, {refusals.quoted(min(left))} first")


def _open(source: BinaryIO, sink: Sink, password: Password) -> tuple[py7zr.SevenZipFile, bool]:
    """Return the opened archive and whether it is encrypted; the password is handed over only where it is needed."""
    encrypted = False
    try:
        # a file object, not a path: with a path py7zr would unpack solid blocks in threads, all at once
        archive = py7zr.SevenZipFile(source, "r")
        if not archive.needs_password():
            return archive, encrypted
        name = next(iter(archive.getnames()), "")
    except PasswordRequired:
        name = "(the list of names)"
    except DAMAGE as error:
        raise _refusal(sink, error, password, encrypted) from error
    if password.value is None:
        raise refusals.password_needed(sink.where, name, password, wrong=False)
    source.seek(0)
    try:
        return py7zr.SevenZipFile(source, "r", password=password.value), True
    except NONSENSE as error:
        raise _refusal(sink, error, password, encrypted=True) from error


def _check_whole(source: BinaryIO, where: str) -> None:
    """Refuse a file that ends before the header that its first 32 bytes announce."""
    head = source.read(HEADER_BYTES)
    found = source.seek(0, 2)
    source.seek(0)
    needed = HEADER_BYTES
    if len(head) == HEADER_BYTES:
        offset, size = struct.unpack_from("<QQ", head, 12)
        needed += offset + size
    if found < needed:
        raise refusals.truncated(where, f"{found} bytes", f"{needed} bytes by its own header (or all volumes joined)")


def _place_all(archive: py7zr.SevenZipFile, sink: Sink) -> dict[str, Path | None]:
    """Return the target of every file by the path under which py7zr will ask for it, None for litter."""
    members = archive.list()
    sink.expect(sum(member.uncompressed for member in members))
    targets: dict[str, Path | None] = {}
    for member in members:
        if not (member.is_directory or member.is_file):
            raise sink.refuse(member.filename, "a link or special file")
        target = sink.place(member.filename, is_folder=member.is_directory)
        if not member.is_directory:
            targets[str(sink.folder / member.filename)] = target
    return targets


def _refusal(sink: Sink, error: Exception, password: Password, encrypted: bool) -> BadInput:
    if isinstance(error, py7zr.UnsupportedCompressionMethodError):
        return refusals.unsupported(sink.where, f"a 7z method unknown here ({error.args[-1]})", "pack it with LZMA2")
    if encrypted:
        return refusals.password_needed(sink.where, "(7z archive)", password, wrong=True)
    return refusals.damaged(sink.where, f"{type(error).__name__}: {error}")


class _Writers(WriterFactory):
    """Gives py7zr one writer per file that was placed, and for no other."""

    def __init__(self, sink: Sink, targets: dict[str, Path | None]) -> None:
        self._sink = sink
        self._targets = targets
        self._last: _Writer | None = None
        self.opened: set[str] = set()

    def create(self, filename: str) -> Py7zIO:
        if filename not in self._targets or filename in self.opened:
            raise refusals.member(self._sink.where, filename, "a file that was not listed", "files of the list")
        self.opened.add(filename)
        name = str(Path(filename).relative_to(self._sink.folder))
        self._last = _Writer(self._sink.open(self._targets[filename], name))
        return self._last

    def close(self) -> None:
        """Close the writer that an error may have left open."""
        if self._last is not None:
            self._last.close()


class _Writer(Py7zIO):
    """One file being written; py7zr reads nothing back, it only rewinds at the end."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def write(self, s: bytes | bytearray) -> int:
        return self._outlet.write(s)

    def read(self, size: int | None = None) -> bytes:  # noqa: ARG002  (py7zr's signature)
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:  # noqa: ARG002
        return 0

    def flush(self) -> None:
        return None

    def size(self) -> int:
        return self._outlet.size

    def close(self) -> None:
        self._outlet.close()
