"""Archives that are cut, flipped, encrypted, split, of another kind, or no archive at all."""

from __future__ import annotations

import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import py7zr
import pytest
import pyzipper
from archive_samples import SETTING, contents, extracted, refused, seven_zip_of, tar_of, zip_of

NOISE = np.random.default_rng(5).integers(0, 256, 3000, np.uint8).tobytes()
MEMBERS = {"one.bin": NOISE, "two.bin": NOISE[::-1]}
MAKERS: dict[str, Callable[[Path], Path]] = {
    "zip": lambda path: zip_of(path, MEMBERS),
    "tar": lambda path: tar_of(path, MEMBERS),
    "tar.gz": lambda path: tar_of(path, MEMBERS, "w:gz"),
    "tar.bz2": lambda path: tar_of(path, MEMBERS, "w:bz2"),
    "tar.xz": lambda path: tar_of(path, MEMBERS, "w:xz"),
    "7z": lambda path: seven_zip_of(path, MEMBERS),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("share", [0.1, 0.45, 0.6, 0.95])
def test_a_cut_archive_is_refused_wherever_it_ends(kind: str, share: float, tmp_path: Path) -> None:
    archive = MAKERS[kind](tmp_path / "a")
    whole = archive.read_bytes()
    if kind == "tar":
        whole = whole.rstrip(b"\0") + bytes(512)  # else the last tenth is padding
    archive.write_bytes(whole[: int(len(whole) * share)])
    problem = refused(archive)
    assert problem.code == "truncated"
    assert "bytes" in problem.found or "break off" in problem.found


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", MEMBERS)
    archive.write_bytes(archive.read_bytes()[: 512 + 3072])
    problem = refused(archive)
    assert problem.code == "truncated"
    assert "an end after 3584 bytes without the closing zero block" in problem.found


def test_a_damaged_header_in_the_middle_of_a_tar_is_no_end(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", MEMBERS)
    data = bytearray(archive.read_bytes())
    data[3584] ^= 1
    archive.write_bytes(data)
    problem = refused(archive)
    assert (problem.code, "at byte 3584" in problem.found) == ("damaged", True)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz", "7z"])
def test_a_flipped_byte_is_found_by_the_checksum(kind: str, tmp_path: Path) -> None:
    archive = MAKERS[kind](tmp_path / "a")
    data = bytearray(archive.read_bytes())
    data[len(data) // 3] ^= 0x10
    archive.write_bytes(data)
    problem = refused(archive)
    # bzip2 gives a block before its checksum: the tar header in it is no longer one
    assert problem.code == ("archive_kind" if kind == "tar.bz2" else "damaged")
    assert kind == "tar.bz2" or "fetch the archive again" in problem.remedy


def test_a_wrong_trailer_of_a_gzip_is_found(tmp_path: Path) -> None:
    archive = MAKERS["tar.gz"](tmp_path / "a.tgz")
    data = bytearray(archive.read_bytes())
    data[-6] ^= 1
    archive.write_bytes(data)
    assert "CRC" in refused(archive).found


def test_data_behind_the_end_of_a_tar_is_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", MEMBERS)
    archive.write_bytes(archive.read_bytes() + archive.read_bytes())
    assert "two archives joined" in refused(archive).found


@pytest.mark.parametrize(
    ("name", "start", "code", "found"),
    [
        ("a.zip", b"", "truncated", "0 bytes"),
        ("a.zip", b"\xef\xbb\xbf\n <!DOCTYPE html><title>Sign in</title>", "html", "probably a login page"),
        ("a.tar.gz", b"<html>", "html", "probably a login page"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00", "archive_kind", "RAR"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd\x00", "archive_kind", "zstd"),
        ("a.zip", b"PK\x07\x08PK\x03\x04", "archive_kind", "first volume of a split zip"),
        ("a.exe", b"MZ\x90\x00", "archive_kind", "self-extracting"),
        ("a.zip", b"version https://git-lfs.github.com/spec/v1\n", "archive_kind", "Git LFS pointer"),
        ("a.7z.001", b"7z\xbc\xaf\x27\x1c", "archive_kind", "one volume of a split archive"),
        ("a.z01", b"PK\x03\x04", "archive_kind", "one volume of a split archive"),
        ("a.zip", b"just some text", "archive_kind", "6a 75 73 74"),
        ("a.tar", bytes(2048), "archive_kind", "no known archive"),
    ],
)
def test_a_file_that_is_no_archive_is_refused_by_its_bytes(
    name: str, start: bytes, code: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(start)
    problem = refused(tmp_path / name)
    assert problem.code == code
    assert found in problem.found
    assert problem.where == name


def test_a_compressed_file_without_a_tar_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(NOISE))
    problem = refused(tmp_path / "scan.nii.gz")
    assert (problem.code, "use the file as it is" in problem.remedy) == ("archive_kind", True)


def test_the_last_volume_of_a_split_zip_is_named_so(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", MEMBERS)
    data = bytearray(archive.read_bytes())
    struct.pack_into("<HH", data, len(data) - 22 + 4, 2, 2)
    archive.write_bytes(data)
    assert "the last of 3 volumes" in refused(archive).found


def aes_zip(path: Path) -> Path:
    with pyzipper.AESZipFile(path, "w", compression=pyzipper.ZIP_DEFLATED, encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(b"s3cret")
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return path


def old_zip(path: Path) -> Path:
    """Return a zip under the old PKWARE cipher, which zipfile reads but does not write."""
    key = [0x12345678, 0x23456789, 0x34567890]

    def turn(byte: int) -> None:
        key[0] = crc_step(key[0], byte)
        key[1] = ((key[1] + (key[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        key[2] = crc_step(key[2], key[1] >> 24)

    def cipher(byte: int) -> int:
        word = (key[2] | 2) & 0xFFFF
        out = byte ^ ((word * (word ^ 1) >> 8) & 0xFF)
        turn(byte)
        return out

    for byte in b"s3cret":
        turn(byte)
    data = b"hello"
    crc = zipfile.crc32(data)
    body = bytes(cipher(byte) for byte in bytes(11) + bytes([crc >> 24]) + data)
    fields = struct.pack("<HHHHHIIIHH", 20, 1, 0, 0, 0x21, crc, len(body), len(data), 3, 0)
    local = b"PK\x03\x04" + fields + b"a.b" + body
    central = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"a.b"
    path.write_bytes(local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0))
    return path


def crc_step(crc: int, byte: int) -> int:
    crc ^= byte & 0xFF
    for _ in range(8):
        crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return crc


def encrypted_7z(path: Path, hide_names: bool) -> Path:
    with py7zr.SevenZipFile(path, "w", password="s3cret", header_encryption=hide_names) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(data, name)
    return path


ENCRYPTED: dict[str, Callable[[Path], Path]] = {
    "aes.zip": aes_zip,
    "old.zip": old_zip,
    "data.7z": lambda path: encrypted_7z(path, False),
    "names.7z": lambda path: encrypted_7z(path, True),
}


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_an_encrypted_archive_names_the_setting_that_carries_its_password(kind: str, tmp_path: Path) -> None:
    archive = ENCRYPTED[kind](tmp_path / kind)
    missing = refused(archive)
    assert missing.code == "archive_password"
    assert "no password" in missing.found
    assert f"set {SETTING}" in missing.remedy
    (tmp_path / "deep").rename(tmp_path / "deep0")
    wrong = refused(archive, password="pass-not")
    assert (wrong.code, "password is wrong" in wrong.found) == ("archive_password", True)
    assert "pass-not" not in str(wrong)
    extracted(archive, tmp_path / "out", password="s3cret")
    assert contents(tmp_path / "out") == ({"a.b": b"hello"} if kind == "old.zip" else MEMBERS)


def test_damage_in_an_encrypted_archive_is_found(tmp_path: Path) -> None:
    archive = aes_zip(tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    data[1000] ^= 1
    archive.write_bytes(data)
    assert "(or the data is damaged)" in refused(archive, password="s3cret").found


def test_a_password_for_an_archive_that_needs_none_does_no_harm(tmp_path: Path) -> None:
    for kind in ("zip", "7z", "tar"):
        extracted(MAKERS[kind](tmp_path / f"a.{kind}"), tmp_path / f"out-{kind}", password="s3cret")
        assert contents(tmp_path / f"out-{kind}") == MEMBERS
    archive = MAKERS["7z"](tmp_path / "b.7z")
    data = bytearray(archive.read_bytes())
    data[1000] ^= 1
    archive.write_bytes(data)
    assert refused(archive, password="s3cret").code == "damaged"
