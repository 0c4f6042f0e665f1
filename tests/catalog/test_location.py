from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from catalog.location import Location


def test_a_folder_is_named_absolutely_however_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = {Location.of(root) for root in ("lake", Path("lake"), tmp_path / "lake", f"file://{tmp_path}/lake")}
    assert named == {Location(str(tmp_path / "lake"))}
    assert Location.of("lake").is_local
    assert (Location.of("lake") / "tables").folder == tmp_path / "lake/tables"


def test_a_url_keeps_its_bucket_and_has_no_folder() -> None:
    place = Location.of("s3://bucket/factory/")
    assert str(place / "tables") == "s3://bucket/factory/tables"
    assert not place.is_local
    with pytest.raises(ValueError, match=r"s3://bucket/factory: found an object store, expected a local folder"):
        place.folder  # noqa: B018


def test_a_url_that_nothing_opens_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"found scheme 'ftp', expected a local folder or one of s3://"):
        Location.of("ftp://host/lake")


def test_keys_of_a_store_are_relative_to_the_place(s3_root: str) -> None:
    place = Location.of(s3_root)
    place.store.put("volumes/a", b"12345")
    assert place.store.head("volumes/a")["size"] == 5
    again = pickle.loads(pickle.dumps(place / "volumes"))
    assert bytes(again.store.get("a").bytes()) == b"12345"
