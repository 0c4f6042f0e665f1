"""What kind of archive a file is, told by its bytes: names lie, and a login page is often called `.zip`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
import tarfile
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, Literal

from datasets_registry.archives import refusals
from imaging.nifti_bytes import GZIP_MAGIC, html_error, is_html

Kind = Literal["zip", "7z", "tar", "tar.gz", "tar.bz2", "tar.xz"]

ARCHIVE = "a zip, tar, tar.gz, tar.bz2, tar.xz or 7z archive"
PACKED: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (GZIP_MAGIC, "tar.gz"),
    (b"BZh", "tar.bz2"),
    (b"\xfd7zXZ\x00", "tar.xz"),
)
UNREADABLE = (
    (b"PK\x07\x08", "the first volume of a split zip archive", "join the volumes (zip -s 0 IN.zip --out OUT.zip)"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it with unrar and point at the folder"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "unpack it with tar --zstd and point at the folder"),
    (b"\x1f\x9d", "compress (.Z) data", "unpack it with uncompress and tar, and point at the folder"),
    (b"LZIP", "lzip data", "unpack it with tar --lzip and point at the folder"),
    (b"\x04\x22\x4d\x18", "lz4 data", "unpack it with lz4 and tar, and point at the folder"),
    (b"MZ", "a Windows program, perhaps a self-extracting archive", "unpack it with 7z and point at the folder"),
    (b"%PDF", "a PDF document", "download the archive itself, not the page about it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file with git lfs pull"),
)
VOLUME = re.compile(r"\.(7z|zip|tar|rar)\.\d{2,3}$|\.z\d{2}$|\.part\d+\.rar$", re.IGNORECASE)
JOIN = "join the volumes first (cat NAME.001 NAME.002 ... > NAME), then unpack the joined file"
BLOCK = tarfile.BLOCKSIZE
DECODE_ERRORS = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def kind_of(archive: Path, where: str) -> Kind:
    """Return the kind of an archive by its first bytes.

    Raises BadInput: `truncated` (no byte), `html` (a web page), `archive_kind` (nothing that is read here, split into
    volumes, or a single compressed file).
    """
    with archive.open("rb") as file:
        start = file.read(1024)
        if not start:
            raise refusals.truncated(where, "an empty file (0 bytes)", ARCHIVE)
        if is_html(start):
            raise html_error(where, ARCHIVE)
        if VOLUME.search(archive.name):
            raise refusals.unsupported(where, "one volume of a split archive", JOIN)
        for magic, found, remedy in UNREADABLE:
            if start.startswith(magic):
                raise refusals.unsupported(where, found, remedy)
        kind = next((kind for magic, kind in PACKED if start.startswith(magic)), None)
        if kind is None:
            kind = "tar" if _is_tar_header(start[:BLOCK]) else None
        elif kind.startswith("tar."):
            _check_holds_tar(file, kind, where)
        elif kind == "zip":
            _check_one_volume(file, where)
    if kind is None:
        raise refusals.unsupported(where, f"bytes of no known archive ({start[:8].hex(' ')})", "fetch the file again")
    return kind


def open_tar_bytes(file: BinaryIO, kind: Kind) -> BinaryIO | BufferedIOBase:
    """Return the uncompressed bytes of a tar archive of this kind, checked by the compressor's own CRC."""
    file.seek(0)
    if kind == "tar.gz":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if kind == "tar.bz2":
        return bz2.BZ2File(file)
    if kind == "tar.xz":
        return lzma.LZMAFile(file)
    return file


def is_archive_name(name: str) -> bool:
    """Tell whether a name ends like an archive's."""
    return name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z"))


def stem_of(name: str) -> str:
    """Return an archive's name without its ending: `MASKS.zip` -> `MASKS`, `a.tar.gz` -> `a`."""
    return re.sub(r"\.(zip|7z|tgz|tar(\.(gz|bz2|xz))?)$", "", name, flags=re.IGNORECASE)


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _check_holds_tar(file: BinaryIO, kind: Kind, where: str) -> None:
    try:
        block = open_tar_bytes(file, kind).read(BLOCK)
    except EOFError as error:
        raise refusals.truncated(where, "compressed data that break off at once", ARCHIVE) from error
    except DECODE_ERRORS as error:
        raise refusals.damaged(where, str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise refusals.damaged(where, str(error)) from error
    if not _is_tar_header(block) and block.strip(b"\0"):
        raise refusals.unsupported(
            where,
            f"one compressed file, no tar archive in it ({kind.removeprefix('tar.')})",
            "use the file as it is, or fetch it again if it should be an archive",
        )


def _check_one_volume(file: BinaryIO, where: str) -> None:
    """Refuse the last part of a split zip: its end record counts the disks before it."""
    file.seek(0, 2)
    size = file.tell()
    file.seek(max(0, size - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at >= 0 and len(tail) >= at + 8:
        (disk,) = struct.unpack_from("<H", tail, at + 4)
        if disk not in (0, 0xFFFF):
            raise refusals.unsupported(where, f"the last of {disk + 1} volumes of a split zip archive", JOIN)
