"""Miniatures of the registry are written once and kept; too few cases or another seed make them written anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import miniatures
from tasks.miniatures import write_miniature_set


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the cases of each miniature that is really written, one file a case in the place of scans."""
    counts: list[int] = []

    def write(card_id: str, folder: Path, *, cases: int, **others: object) -> list[str]:
        counts.append(cases)
        for case in range(cases):
            (folder / f"{card_id}-{case}").touch()
        return []

    monkeypatch.setattr(miniatures, "write_miniature", write)
    return counts


def test_a_second_call_keeps_what_is_there(tmp_path: Path, written: list[int]) -> None:
    first = write_miniature_set("btcv", tmp_path, cases=2, seed=1)
    assert first == tmp_path / "registry" / "btcv"
    assert write_miniature_set("btcv", tmp_path, cases=1, seed=1) == first
    assert written == [2]
    assert len(list(first.iterdir())) == 2


def test_more_cases_or_another_seed_are_written_anew(tmp_path: Path, written: list[int]) -> None:
    folder = write_miniature_set("btcv", tmp_path, cases=1, seed=1)
    write_miniature_set("btcv", tmp_path, cases=3, seed=1)
    write_miniature_set("btcv", tmp_path, cases=3, seed=2)
    assert written == [1, 3, 3]
    assert len(list(folder.iterdir())) == 3


def test_a_folder_without_its_note_was_not_finished(tmp_path: Path, written: list[int]) -> None:
    folder = write_miniature_set("btcv", tmp_path, cases=2, seed=1)
    (tmp_path / "registry" / "btcv.json").unlink()
    write_miniature_set("btcv", tmp_path, cases=2, seed=1)
    assert written == [2, 2]
    assert json.loads((tmp_path / "registry" / "btcv.json").read_text()) == {"cases": 2, "seed": 1}
    assert not list(folder.parent.glob(".*.partial"))


def test_a_set_gives_no_more_cases_than_it_has_and_a_variant_has_its_own_folder(
    tmp_path: Path, written: list[int]
) -> None:
    write_miniature_set("chaos_ct", tmp_path, cases=50, seed=1)
    variant = write_miniature_set("kits", tmp_path, cases=1, seed=1, variant="kits19")
    assert written == [20, 1]
    assert variant.name == "kits-kits19"
