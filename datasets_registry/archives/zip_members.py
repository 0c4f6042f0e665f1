"""The members of a zip archive: read with the standard library, AES-encrypted ones with pyzipper."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import pyzipper

from datasets_registry.archives import refusals
from datasets_registry.archives.limits import Password
from datasets_registry.archives.sink import Sink
from imaging.errors import BadInput

ENCRYPTED = 0x1
AES_METHOD = 99
LOCAL_HEADER = 30
"""Bytes of a member's own header before its name."""
UNIX_TYPE_SHIFT = 16
REPARSE_POINT = 0x400
"""Windows attribute of links and junctions."""
DAMAGE = (zipfile.BadZipFile, pyzipper.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError)


def extract_zip(source: BinaryIO, sink: Sink, password: Password) -> None:
    """Unpack a whole zip archive into `sink`.

    All names, kinds and declared sizes are checked before the first byte is written. Raises BadInput for a member
    that breaks a rule, for members that share bytes (overlapping ones are how small zips become huge), for a missing
    or wrong password, for methods unknown here and for damage; zipfile compares every CRC, pyzipper every HMAC.
    """
    try:
        archive = _open(source)
    except DAMAGE as error:
        raise _unreadable(source, sink.where, error) from error
    except NotImplementedError as error:
        raise refusals.unsupported(sink.where, f"a zip archive with {error}", "pack it again as a plain zip") from error
    with archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        _check_no_shared_bytes(members, archive.start_dir, sink.where)
        sink.expect(sum(member.file_size for member in members))
        targets = [_place(member, sink, password) for member in members]
        for member, target in zip(members, targets, strict=True):
            if target is not None and not _is_folder(member):
                _write(archive, member, target, sink, password)


def _open(source: BinaryIO) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(source)
    if any(member.compress_type == AES_METHOD for member in archive.infolist()):
        source.seek(0)
        aes: zipfile.ZipFile = pyzipper.AESZipFile(source)
        return aes
    return archive


def _check_no_shared_bytes(members: list[zipfile.ZipInfo], directory_at: int, where: str) -> None:
    """Refuse members that lie over one another or over the directory, and data before the first member.

    members: in the order of their places. A member's extra field is left out of its length, so that equality here
    never rejects a sound archive.
    """
    if members and members[0].header_offset > 0:
        raise refusals.damaged(
            where, f"{members[0].header_offset} bytes before the first member; are two archives joined?"
        )
    for number, member in enumerate(members, start=1):
        end = member.header_offset + LOCAL_HEADER + len(member.orig_filename) + member.compress_size
        limit = members[number].header_offset if number < len(members) else directory_at
        if end > limit:
            raise refusals.member(
                where,
                member.orig_filename,
                f"bytes up to {end} that belong to what follows at {limit}",
                "members that share no bytes",
            )


def _place(member: zipfile.ZipInfo, sink: Sink, password: Password) -> Path | None:
    kind = stat.S_IFMT(member.external_attr >> UNIX_TYPE_SHIFT)
    # orig_filename: zipfile cuts `filename` at a NUL
    name = member.orig_filename
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.external_attr & REPARSE_POINT:
        raise sink.refuse(name, f"a {_kind_name(kind)}")
    if _is_folder(member) and member.file_size:
        raise sink.refuse(name, f"a folder that holds {member.file_size} bytes")
    if member.flag_bits & ENCRYPTED and password.value is None:
        raise refusals.password_needed(sink.where, name, password, wrong=False)
    return sink.place(name, is_folder=_is_folder(member))


def _is_folder(member: zipfile.ZipInfo) -> bool:
    return member.orig_filename.endswith("/")


def _kind_name(kind: int) -> str:
    names = {stat.S_IFLNK: "symbolic link", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device",
             stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}  # fmt: skip
    return names.get(kind, "link or special file")


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, sink: Sink, password: Password) -> None:
    encrypted = bool(member.flag_bits & ENCRYPTED)
    secret = password.value.encode() if encrypted and password.value is not None else None
    name = member.orig_filename
    try:
        with archive.open(member, pwd=secret) as data, sink.open(target, name, member.compress_size) as outlet:
            outlet.copy(data)
            if outlet.size != member.file_size:
                # zipfile ends without a word where the packed bytes end, whatever size was announced
                raise zipfile.BadZipFile(f"{outlet.size} bytes where {member.file_size} were announced")
    except NotImplementedError as error:
        raise refusals.unsupported(sink.where, f"member {refusals.quoted(name)}: {error}", "pack it again") from error
    except DAMAGE as error:
        raise _bad_member(sink, name, str(error), encrypted, password) from error
    except RuntimeError as error:
        # how both libraries report a password that does not fit
        if not encrypted:
            raise
        raise refusals.password_needed(sink.where, name, password, wrong=True) from error
    except OSError as error:
        # bz2 reports bad data as an OSError without a number; those of the disk carry one
        if error.errno is not None:
            raise
        raise _bad_member(sink, name, str(error), encrypted, password) from error


def _bad_member(sink: Sink, name: str, reason: str, encrypted: bool, password: Password) -> BadInput:
    if encrypted:
        return refusals.password_needed(sink.where, name, password, wrong=True)
    return refusals.damaged(sink.where, f"member {refusals.quoted(name)}: {reason}")


def _unreadable(source: BinaryIO, where: str, error: Exception) -> BadInput:
    size = source.seek(0, 2)
    source.seek(max(0, size - 65_557))
    if b"PK\x05\x06" in source.read():
        return refusals.damaged(where, str(error))
    return refusals.truncated(where, f"{size} bytes without a directory at their end", "the directory of a zip archive")
