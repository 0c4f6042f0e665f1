"""Verify finds each damage by case and file; a killed ingest leaves a lake equal to a clean one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catalog.lake import Lake
from catalog.seals import wrong_in
from catalog.tables import Tables
from catalog.verify import verify


def test_a_sound_lake_has_no_damage(ingested: Any, lake: Lake, tables: Tables, label: Any, label_row: Any) -> None:
    row = ingested()
    ingested("lits", "case_9", seed=4)
    manifest = lake.write_annotation(row["path"], "pseudo-v1-00ff", label(1))
    tables.commit_labels([label_row(row, "liver", "pseudo-v1-00ff", manifest=manifest.to_json())])
    assert verify(tables, lake) == []
    assert verify(tables, lake, read_data=True) == []


@pytest.mark.parametrize("fault", ["deleted", "emptied", "truncated", "swapped", "folder"])
@pytest.mark.parametrize(
    "file", ["0/c/0/0/0", "2/zarr.json", "labels/human/0/c/0/0/0/0", "labels/pseudo-v1-00ff/zarr.json"]
)
def test_damage_is_named_by_case_and_file(
    ingested: Any, lake: Lake, tables: Tables, label: Any, label_row: Any, fault: str, file: str
) -> None:
    row, other = ingested(), ingested("lits", "case_9", seed=4)
    for case in (row, other):
        manifest = lake.write_annotation(
            case["path"], "pseudo-v1-00ff", label(int(case is other)), {"case": case["path"]}
        )
        tables.commit_labels([label_row(case, "liver", "pseudo-v1-00ff", manifest=manifest.to_json())])
    path = lake.root / row["path"] / file
    content = path.read_bytes()
    if fault in ("deleted", "folder"):
        path.unlink()
        if fault == "folder":
            path.mkdir()
    elif fault == "swapped":
        path.write_bytes((lake.root / other["path"] / file).read_bytes() + b" " * (file == "2/zarr.json"))
    else:
        path.write_bytes(content[: 0 if fault == "emptied" else -1])
    found = verify(tables, lake)
    assert [(damage.case_id, damage.file) for damage in found] == [("kits/case_1", f"{row['path']}/{file}")]
    assert "ingest the case again" in str(found[0])


@pytest.mark.parametrize("file", ["0/c/0/0/0", "1/c/0/0/0", "labels/human/2/c/0/0/0/0"])
def test_a_flipped_bit_is_found_when_data_is_read(ingested: Any, lake: Lake, tables: Tables, file: str) -> None:
    row = ingested()
    path = lake.root / row["path"] / file
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    assert verify(tables, lake) == []
    assert [damage.file for damage in verify(tables, lake, read_data=True)] == [f"{row['path']}/{file}"]


def test_an_annotation_lost_from_the_list_of_labels_is_found(ingested: Any, lake: Lake, tables: Tables) -> None:
    row = ingested()
    (lake.root / row["path"] / "labels/zarr.json").write_text("{}")
    assert [damage.file for damage in verify(tables, lake)] == [f"{row['path']}/labels/zarr.json"]


def test_samples_read_their_share_and_other_seeds_other_files(
    ingested: Any, lake: Lake, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        ingested(native_id=f"case_{number}", seed=number)
    read: list[Path] = []

    def noted(path: Path, checksums: Any) -> str | None:
        read.append(path)
        return wrong_in(path, checksums)

    monkeypatch.setattr("catalog.verify.wrong_in", noted)
    shards = 4 * 6
    for sample, expected in ((0.0, 0), (1.0, shards)):
        read.clear()
        assert verify(tables, lake, sample=sample, seed="a") == []
        assert len(read) == expected
    chosen = []
    for seed in ("a", "b", "a", "c"):
        read.clear()
        verify(tables, lake, sample=0.5, seed=seed)
        chosen.append(frozenset(read))
    assert chosen[0] == chosen[2]
    assert len(set(chosen)) == 3
    assert all(shards / 4 < len(names) < shards * 3 / 4 for names in chosen)
    with pytest.raises(ValueError, match="sample is 5, expected a share from 0 to 1"):
        verify(tables, lake, sample=5)


@pytest.mark.parametrize("fault", ["deleted", "emptied", "flipped", "longer", "other"])
def test_any_damage_to_the_list_of_labels_is_found(ingested: Any, lake: Lake, tables: Tables, fault: str) -> None:
    row = ingested()
    path = lake.root / row["path"] / "labels/zarr.json"
    content = path.read_text()
    path.write_text(
        {
            "deleted": content,
            "emptied": "",
            "flipped": content.replace("\n  ", "\n \t", 1),  # still the same JSON
            "longer": content + " ",
            "other": content.replace('"human"', '"human", "nobody"'),
        }[fault]
    )
    if fault == "deleted":
        path.unlink()
    assert [damage.file for damage in verify(tables, lake)] == [f"{row['path']}/labels/zarr.json"]
