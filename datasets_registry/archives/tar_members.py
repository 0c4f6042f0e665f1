"""The members of a tar archive, compressed or not, read from front to back in one pass."""

from __future__ import annotations

import tarfile
from io import BufferedIOBase
from pathlib import Path
from typing import IO, BinaryIO, cast

from datasets_registry.archives import refusals
from datasets_registry.archives.kinds import BLOCK, DECODE_ERRORS, Kind, open_tar_bytes
from datasets_registry.archives.sink import PIECE, Sink

MAX_PADDING = 2**24
"""Zero bytes after the end mark; tar pads to its record size, 10 KiB unless asked otherwise."""


def extract_tar(source: BinaryIO, kind: Kind, sink: Sink) -> None:
    """Unpack a whole tar archive into `sink`.

    Raises BadInput for a member that is neither file nor folder or breaks a rule, for an archive without its end mark
    (tarfile takes a damaged header in the middle for the end, silently) and for damage, the compressor's CRC included.
    """
    size = source.seek(0, 2)
    sink.expect(size)  # the least that it can unpack to: a tar archive declares no total
    stream = _LastRead(open_tar_bytes(source, kind))
    try:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:", encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else a million members stay in memory
                _write(archive, member, sink)
        _check_end(stream, sink.where)
    except EOFError as error:
        raise refusals.truncated(
            sink.where, f"{size} bytes that break off", "a whole compressed tar archive"
        ) from error
    except (tarfile.TarError, *DECODE_ERRORS) as error:
        if kind == "tar" and isinstance(error, tarfile.ReadError) and source.tell() == size:
            raise refusals.truncated(sink.where, f"{size} bytes ({error})", "a whole tar archive") from error
        raise refusals.damaged(sink.where, f"{type(error).__name__}: {error}") from error
    except OSError as error:
        # bz2 reports bad data as an OSError without a number; those of the disk carry one
        if error.errno is not None:
            raise
        raise refusals.damaged(sink.where, str(error)) from error


class _LastRead:
    """A readable, seekable file that remembers the piece read last."""

    def __init__(self, file: BinaryIO | BufferedIOBase) -> None:
        self._file = file
        self.last = b""

    def read(self, count: int = -1) -> bytes:
        self.last = self._file.read(count)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, sink: Sink) -> None:
    if not (member.isreg() or member.isdir()):
        raise sink.refuse(member.name, f"a {_kind_name(member)}")
    target = sink.place(member.name, is_folder=member.isdir())
    _second_wall(member, sink.folder, sink.where)
    if not member.isdir():
        data = archive.extractfile(member)
        with sink.open(target, member.name) as outlet:
            if data is not None:
                outlet.copy(data)


def _second_wall(member: tarfile.TarInfo, folder: Path, where: str) -> None:
    """Ask the standard library's own filter as well; our rules are meant to be the stricter ones."""
    try:
        tarfile.data_filter(member, str(folder))
    except tarfile.FilterError as error:
        raise refusals.member(
            where, member.name, str(error), "a member that tarfile's data filter lets pass"
        ) from error


def _kind_name(member: tarfile.TarInfo) -> str:
    if member.issym():
        return f"symbolic link to {refusals.quoted(member.linkname)}"
    if member.islnk():
        return f"hard link to {refusals.quoted(member.linkname)}"
    kinds = {tarfile.CHRTYPE: "character device", tarfile.BLKTYPE: "block device", tarfile.FIFOTYPE: "named pipe"}
    return kinds.get(member.type, f"member of unknown type {member.type!a}")


def _check_end(stream: _LastRead, where: str) -> None:
    """Refuse an archive that does not end in a zero block, or holds data behind it; reads to the last byte."""
    if len(stream.last) < BLOCK:
        raise refusals.truncated(
            where, f"an end after {stream.tell()} bytes without the closing zero block", "a whole tar archive"
        )
    if stream.last.strip(b"\0"):
        raise refusals.damaged(where, f"a member header that is none, at byte {stream.tell() - BLOCK}")
    padding = 0
    while piece := stream.read(PIECE):
        padding += len(piece)
        if piece.strip(b"\0"):
            raise refusals.damaged(where, "data behind the end mark; are two archives joined?")
        if padding > MAX_PADDING:
            raise refusals.limit(where, f"more than {MAX_PADDING} bytes of padding", f"{MAX_PADDING} bytes", "nothing")
