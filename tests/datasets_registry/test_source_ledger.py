"""The ledger remembers the first digest, refuses another one, and survives a torn line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets_registry.sources.ledger import Ledger
from datasets_registry.sources.partial import hash_file
from datasets_registry.sources.placed import placed_files, require_placed
from datasets_registry.sources.spec import HttpsSource, ManualSource
from imaging.errors import BadInput


def written(folder: Path, text: bytes, name: str = "a.bin") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return path


def recorded(folder: Path, text: bytes = b"first", *, volatile: bool = False) -> Ledger:
    path = written(folder, text)
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.record(
        "a.bin",
        path,
        hash_file(path),
        how="downloaded",
        url="https://example.org/a.bin",
        etag='"1"',
        volatile=volatile,
    )
    return ledger


def test_line_says_what_came_when_and_from_where(tmp_path: Path) -> None:
    recorded(tmp_path)
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["sha256"] == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    assert entry["md5"] == "8b04d5e3775d298e78455efc5ca404d5"
    assert (entry["bytes"], entry["etag"], entry["url"]) == (5, '"1"', "https://example.org/a.bin")
    assert entry["date"].endswith("+00:00")


def test_later_change_stops_with_both_digests(tmp_path: Path) -> None:
    recorded(tmp_path)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.require_same("a.bin", hash_file(tmp_path / "a.bin"))
    other = hash_file(written(tmp_path, b"second"))
    with pytest.raises(BadInput) as caught:
        ledger.require_same("a.bin", other)
    assert caught.value.code == "changed_upstream"
    assert other.sha256 in caught.value.found
    assert "a7937b64" in caught.value.expected
    assert "ledger.jsonl" in caught.value.remedy


def test_archives_packed_anew_may_change(tmp_path: Path) -> None:
    ledger = recorded(tmp_path, volatile=True)
    ledger.require_same("a.bin", hash_file(written(tmp_path, b"second")))


def test_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    recorded(tmp_path)
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"name": "b.bin", "byt')
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.first("b.bin") is None
    path = written(tmp_path, b"b", "b.bin")
    ledger.record("b.bin", path, hash_file(path), how="placed", url="file:b.bin", etag=None)
    assert [json.loads(line)["name"] for line in (tmp_path / "ledger.jsonl").read_text().splitlines()] == [
        "a.bin",
        "b.bin",
    ]


def test_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("hello\n")
    with pytest.raises(ValueError, match="line 1: not an entry"):
        Ledger(tmp_path / "ledger.jsonl")


def test_unchanged_file_is_not_hashed_again(tmp_path: Path) -> None:
    ledger = recorded(tmp_path)
    assert ledger.is_known("a.bin", tmp_path / "a.bin")
    written(tmp_path, b"other!")
    assert not ledger.is_known("a.bin", tmp_path / "a.bin")


def test_placed_file_is_compared_with_the_card_and_recorded(tmp_path: Path) -> None:
    path = written(tmp_path, b"first")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    source = ManualSource(name="a.bin", md5="8b04d5e3775d298e78455efc5ca404d5")
    assert not require_placed(source, "a.bin", path, ledger)
    entry = ledger.first("a.bin")
    assert entry is not None
    assert (entry.how, entry.url) == ("placed", "file:a.bin")
    assert require_placed(source, "a.bin", path, ledger)
    wrong = HttpsSource(name="b.bin", url="https://example.org/b", md5="0" * 32)
    other = written(tmp_path, b"first", "b.bin")
    with pytest.raises(BadInput, match="8b04d5e3775d298e78455efc5ca404d5"):
        require_placed(wrong, "b.bin", other, ledger)
    assert other.exists()


def test_placed_login_page_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, b"<html>please sign in</html>", "a.zip")
    with pytest.raises(BadInput, match="HTML, probably a login page"):
        require_placed(ManualSource(name="a.zip"), "a.zip", path, Ledger(tmp_path / "ledger.jsonl"))


def test_placed_folder_counts_its_files_but_not_hidden_ones(tmp_path: Path) -> None:
    for name in ("set/a.nii.gz", "set/deep/b.nii.gz", "set/.DS_Store"):
        written(tmp_path, b"x", name)
    assert [path.name for path in placed_files(tmp_path, "set")] == ["a.nii.gz", "b.nii.gz"]
    assert placed_files(tmp_path, "absent") == []
