"""Bombs: every limit of `UnpackLimits`, checked on the bytes that come out and not on what headers say."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_samples import extracted, refused, seven_zip_of, tar_of, zip_of

from datasets_registry.archives import sink
from datasets_registry.archives.limits import UnpackLimits

ZEROS = bytes(300_000)
MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": zip_of,
    "tar.gz": lambda path, members: tar_of(path, members, "w:gz"),
    "7z": seven_zip_of,
}
kinds = pytest.mark.parametrize("kind", MAKERS)


@kinds
def test_too_many_bytes_in_all(kind: str, tmp_path: Path) -> None:
    problem = refused(MAKERS[kind](tmp_path / "a", {"x": ZEROS, "y": ZEROS}), max_bytes=400_000)
    assert problem.code == "archive_limit"
    assert problem.expected == "at most 400000 bytes in all"
    # zip and 7z announce their sizes, so nothing is written; a tar shows its size only while it is read
    written = any((tmp_path / "deep" / "er" / "out").iterdir())
    assert (problem.found, written) == (
        ("more than 400000 bytes", True) if kind == "tar.gz" else ("600000 bytes declared", False)
    )
    assert "raise max_bytes of UnpackLimits" in problem.remedy


@kinds
def test_too_many_bytes_in_one_member(kind: str, tmp_path: Path) -> None:
    problem = refused(MAKERS[kind](tmp_path / "a", {"x": b"1", "y": ZEROS}), max_member_bytes=200_000)
    assert (problem.code, "member 'y'" in problem.found) == ("archive_limit", True)


@kinds
def test_too_many_members_litter_included(kind: str, tmp_path: Path) -> None:
    members = {f"._{number}": b"" for number in range(4)}
    problem = refused(MAKERS[kind](tmp_path / "a", {"x": b"1", **members}), max_members=4)
    assert (problem.code, problem.found) == ("archive_limit", "more than 4 members")
    assert extracted(tmp_path / "a", tmp_path / "out", UnpackLimits(max_members=5)).tally.litter == 4


@kinds
def test_too_high_a_ratio_of_unpacked_to_packed_bytes(kind: str, tmp_path: Path) -> None:
    problem = refused(MAKERS[kind](tmp_path / "a", {"x": ZEROS}), max_ratio=50, ratio_free_bytes=100_000)
    assert (problem.code, problem.expected) == ("archive_limit", "at most 50 times the packed bytes")
    extracted(tmp_path / "a", tmp_path / "out", UnpackLimits(max_ratio=50, ratio_free_bytes=400_000))


def test_one_bomb_among_much_sound_data_is_found_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("sound", ZEROS)  # stored
        archive.writestr("bomb", ZEROS, zipfile.ZIP_DEFLATED)
    problem = refused(tmp_path / "a.zip", max_ratio=50, ratio_free_bytes=100_000)
    assert problem.found.startswith("member 'bomb' giving more than")


def test_a_bomb_inside_litter_counts_too(tmp_path: Path) -> None:
    problem = refused(tar_of(tmp_path / "a.tgz", {"x": b"1", "._x": ZEROS}, "w:gz"), max_bytes=200_000)
    assert problem.code == "archive_limit"


def test_a_zip_header_that_promises_few_bytes_gives_no_more_and_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"x": ZEROS})
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, 10)  # its unpacked size
    archive.write_bytes(data)
    assert refused(archive, max_bytes=1000).code == "damaged"


def test_endless_padding_of_a_tar_is_cut_off(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", {"x": b"1"})
    with gzip.open(tmp_path / "a.tgz", "wb") as packed:
        packed.write(archive.read_bytes())
        for _ in range(20):
            packed.write(bytes(2**20))
    assert "bytes of padding" in refused(tmp_path / "a.tgz").found


def test_an_inner_archive_shares_the_limits_of_the_outer_one(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "in.zip", {"x": ZEROS}).read_bytes()
    outer = zip_of(tmp_path / "out.zip", {"1.zip": inner, "2.zip": inner}, zipfile.ZIP_STORED)
    problem = refused(outer, nested="*.zip", max_bytes=400_000)
    assert problem.code == "archive_limit"
    assert problem.where == "out.zip, inner archive '2.zip'"


@kinds
def test_room_on_the_disk_is_checked_before_the_first_byte(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = MAKERS[kind](tmp_path / "a", {"x": ZEROS})
    monkeypatch.setattr(sink, "DISK_RESERVE", 2**62)
    with pytest.raises(OSError, match="make room for") as caught:
        extracted(archive, tmp_path / "out")
    assert caught.value.errno == 28
    assert str(tmp_path / "out") in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_limit_of_zero_is_no_limit_but_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"UnpackLimits\.max_members is 0"):
        UnpackLimits(max_members=0)


def test_a_sparse_tar_member_counts_with_its_full_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (2**30 - 512, 0)  # one empty piece at the end of 1 GiB
    header[483:495] = b"%011o\0" % 2**30
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    assert refused(tmp_path / "a.tar", max_bytes=2**20).code == "archive_limit"
