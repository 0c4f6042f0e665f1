"""Archives for the tests of `archives/`, sound and hostile ones, and one way to unpack them in this process.

`zip_of`, `tar_of`, `seven_zip_of` write {name: bytes}; `refused` returns the BadInput that an archive gives rise to,
after checking that nothing was written outside its folder.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import py7zr
import pytest

from datasets_registry.archives.extract import Extracted, Order, extract
from datasets_registry.archives.limits import Password, UnpackLimits
from imaging.errors import BadInput

SETTING = "CTFACTORY_TEST_PASSWORD"
NESTED_7Z_HEADER = 32


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, attributes: int = 0) -> Path:
    """Write a zip; attributes: external attributes of every member. Names are stored as they are, NUL included."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = method
            info.external_attr = attributes
            archive.writestr(info, data)
    return path


def tar_of(path: Path, members: dict[str, bytes], mode: str = "w", **fields: object) -> Path:
    """Write a tar (mode `w`, `w:gz`, ...); fields: set on every TarInfo (type, linkname, ...)."""
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(info, key, value)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def seven_zip_of(path: Path, members: dict[str, bytes], password: str | None = None) -> Path:
    """Write a 7z with a plain (not packed) list of names, so that a test can edit them."""
    with py7zr.SevenZipFile(path, "w", password=password) as archive:
        archive.set_encoded_header_mode(False)
        for name, data in members.items():
            archive.writestr(data, name)
    return path


def edit_7z_header(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes of the same length in a 7z's list of names and put its two checksums right."""
    data = bytearray(path.read_bytes())
    offset, size = struct.unpack_from("<QQ", data, 12)
    start = NESTED_7Z_HEADER + offset
    header = bytes(data[start : start + size])
    assert old in header, "the test itself is wrong"
    assert len(old) == len(new)
    header = header.replace(old, new)
    data[start : start + size] = header
    struct.pack_into("<I", data, 28, zlib.crc32(header))
    struct.pack_into("<I", data, 8, zlib.crc32(bytes(data[12:32])))
    path.write_bytes(data)
    return path


def extracted(
    archive: Path, folder: Path, limits: UnpackLimits | None = None, password: str | None = None, nested: str = ""
) -> Extracted:
    """Unpack in this process into `folder`, which is made."""
    folder.mkdir(parents=True)
    order = Order(
        archive, folder, limits or UnpackLimits(), Password(password, SETTING), tuple(nested.split()) if nested else ()
    )
    return extract(order, _silent)


def _silent(done: int, total: int) -> None:
    return


def refused(archive: Path, password: str | None = None, nested: str = "", **limits: float) -> BadInput:
    """Return the refusal of `archive`; fails when it is accepted or when a file appears outside its folder."""
    folder = archive.parent / "deep" / "er" / "out"
    before = tree(archive.parent)
    with pytest.raises(BadInput) as caught:
        extracted(archive, folder, UnpackLimits(**limits), password, nested)
    inside = {path for path in tree(archive.parent) if path.is_relative_to(folder.relative_to(archive.parent))}
    assert tree(archive.parent) - inside == before
    return caught.value


def tree(folder: Path) -> set[Path]:
    """Return the relative paths of all that is no folder below `folder`."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below `folder` by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
