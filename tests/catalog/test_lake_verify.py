"""Verify finds each damage by case and file; a killed ingest leaves a lake equal to a clean one."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.lake import Lake
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
