"""Hostile members in zip, tar and 7z archives: links, devices, escapes, collisions, shared bytes; and litter."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import py7zr
import pytest
from archive_samples import contents, edit_7z_header, extracted, refused, seven_zip_of, tar_of, zip_of

MEMBERS = {"set/a.nii": b"a" * 5000, "set/empty": b"", "set/sub/b.txt": b"bb"}
MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": zip_of,
    "stored.zip": lambda path, members: zip_of(path, members, zipfile.ZIP_STORED),
    "bzip2.zip": lambda path, members: zip_of(path, members, zipfile.ZIP_BZIP2),
    "lzma.zip": lambda path, members: zip_of(path, members, zipfile.ZIP_LZMA),
    "tar": tar_of,
    "tar.gz": lambda path, members: tar_of(path, members, "w:gz"),
    "tar.bz2": lambda path, members: tar_of(path, members, "w:bz2"),
    "tar.xz": lambda path, members: tar_of(path, members, "w:xz"),
    "7z": seven_zip_of,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_gives_the_same_plain_files_whatever_its_name(kind: str, tmp_path: Path) -> None:
    archive = MAKERS[kind](tmp_path / "archive.dat", MEMBERS)
    done = extracted(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == MEMBERS
    assert (done.tally.files, done.tally.bytes, done.tally.litter) == (3, 5002, 0)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "7z"])
def test_files_are_plain_ones_of_mode_644_whatever_the_archive_says(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "bin").mkdir(parents=True, mode=0o700)
    (source / "bin" / "run").write_bytes(b"#!/bin/sh")
    (source / "bin" / "run").chmod(0o6777)
    archive = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as out:
            out.write(source / "bin" / "run", "bin/run")
    elif kind == "7z":
        with py7zr.SevenZipFile(archive, "w") as seven:
            seven.writeall(source / "bin", "bin")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(source / "bin", "bin")
    old = os.umask(0o077)
    try:
        extracted(archive, tmp_path / "out")
    finally:
        os.umask(old)
    assert stat.filemode((tmp_path / "out/bin/run").stat().st_mode) == "-rw-r--r--"
    assert stat.S_IMODE((tmp_path / "out/bin").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "7z"])
def test_litter_is_counted_and_not_written(kind: str, tmp_path: Path) -> None:
    litter = {"__MACOSX/set/._a.nii": b"x", "set/._a.nii": b"y", "set/.DS_Store": b"z", "Thumbs.db": b"w"}
    archive = MAKERS[kind](tmp_path / "archive", {**MEMBERS, **litter})
    done = extracted(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == MEMBERS
    assert done.tally.litter == 4


@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        (stat.S_IFLNK, "symbolic link"),
        (stat.S_IFCHR, "character device"),
        (stat.S_IFBLK, "block device"),
        (stat.S_IFIFO, "named pipe"),
        (stat.S_IFSOCK, "socket"),
    ],
)
def test_a_zip_member_that_is_no_plain_file_is_refused(mode: int, rule: str, tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"set/link": b"/etc/passwd"}, attributes=(mode | 0o777) << 16)
    problem = refused(archive)
    assert (problem.code, problem.where) == ("archive_member", "a.zip, member 'set/link'")
    assert rule in problem.found


def test_a_windows_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    assert refused(zip_of(tmp_path / "a.zip", {"junction": b"x"}, attributes=0x400)).code == "archive_member"


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (tarfile.SYMTYPE, "symbolic link to '../../etc'"),
        (tarfile.LNKTYPE, "hard link to '../../etc'"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "named pipe"),
        (b"M", "unknown type b'M'"),
    ],
)
def test_a_tar_member_that_is_no_plain_file_is_refused(kind: bytes, rule: str, tmp_path: Path) -> None:
    problem = refused(tar_of(tmp_path / "a.tar", {"set/x": b""}, type=kind, linkname="../../etc"))
    assert (problem.code, problem.where) == ("archive_member", "a.tar, member 'set/x'")
    assert rule in problem.found


def test_a_link_in_a_7z_is_refused_even_inside_the_folder(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "real").write_bytes(b"1")
    (source / "link").symlink_to("real")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.writeall(source, "set")
    problem = refused(tmp_path / "a.7z")
    assert problem.where == "a.7z, member 'set/link'"
    assert "link" in problem.found


@pytest.mark.parametrize("name", ["../evil", "/abs/x", "..\\evil", "C:/evil", "a\0evil", "a/../../evil"])
def test_an_escaping_name_is_refused_in_zip_and_tar(name: str, tmp_path: Path) -> None:
    assert refused(zip_of(tmp_path / "a.zip", {"fine": b"1", name: b"2"})).code == "archive_member"
    if "\0" not in name:  # ends the name in a tar header
        (tmp_path / "b").mkdir()
        assert refused(tar_of(tmp_path / "b" / "a.tar", {"fine": b"1", name: b"2"})).code == "archive_member"


@pytest.mark.parametrize("name", ["../evil", "/bs/evil", "..\\evil", "C:/evil", "aa/evi\n"])
def test_an_escaping_name_is_refused_in_a_7z(name: str, tmp_path: Path) -> None:
    plain = "abc/defg"[: len(name)]
    archive = seven_zip_of(tmp_path / "a.7z", {"fine": b"1", plain: b"2"})
    edit_7z_header(archive, plain.encode("utf-16-le"), name.encode("utf-16-le"))
    assert refused(archive).code == "archive_member"


@pytest.mark.parametrize("kind", ["zip", "tar", "7z"])
def test_names_that_are_one_file_elsewhere_are_refused(kind: str, tmp_path: Path) -> None:
    problem = refused(MAKERS[kind](tmp_path / "a", {"Scan.nii": b"1", "scan.NII": b"2"}))
    assert problem.where == "a, member 'scan.NII'"
    assert "the same file as 'Scan.nii'" in problem.found


def test_a_name_twice_is_refused_in_every_kind(tmp_path: Path) -> None:
    twice = zip_of(tmp_path / "a.zip", {"one.nii": b"1", "two.nii": b"2"})
    twice.write_bytes(twice.read_bytes().replace(b"two.nii", b"one.nii"))
    assert "the same file" in refused(twice).found
    seven = seven_zip_of(tmp_path / "a.7z", {"one.nii": b"1", "two.nii": b"2"})
    edit_7z_header(seven, "two".encode("utf-16-le"), "one".encode("utf-16-le"))
    (tmp_path / "deep").rename(tmp_path / "deep0")
    assert "the same file" in refused(seven).found


def test_zip_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"one": bytes(10_000), "two": b"2"})
    data = bytearray(archive.read_bytes())
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 20)  # its place: in the middle of the first member
    archive.write_bytes(data)
    problem = refused(archive)
    assert problem.code == "archive_member"
    assert "share no bytes" in problem.expected


def test_a_zip_behind_other_data_is_refused(tmp_path: Path) -> None:
    first = zip_of(tmp_path / "1.zip", {"one": b"1"}).read_bytes()
    second = zip_of(tmp_path / "2.zip", {"two": b"2"}).read_bytes()
    joined = tmp_path / "joined.zip"
    joined.write_bytes(first + second)
    problem = refused(joined)
    assert problem.code == "damaged"
    assert f"{len(first)} bytes before the first member" in problem.found


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "7z"])
def test_an_archive_without_a_file_is_refused(kind: str, tmp_path: Path) -> None:
    problem = refused(MAKERS[kind](tmp_path / "a", {}))
    assert (problem.code, problem.found) == ("archive_kind", "no file among 0 members, 0 of them litter")
