"""Reading: any box, padded or not, equals the volume given; damage raises and never reads as air."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_rows import make_label, make_scan
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog import lake as lake_module
from catalog import lake_read, layout
from catalog.errors import LakeDamage
from catalog.lake import Lake
from catalog.lake_read import Index, clip_box
from catalog.manifest import Manifest, build_manifest
from catalog.seals import ATTRIBUTE
from catalog.shard import Shard
from catalog.tables import Tables
from catalog.verify import verify
from imaging.volume import Volume

SHARD = "0/c/0/0/0"
LABEL_SHARD = "labels/human/0/c/0/0/0/0"


@pytest.mark.parametrize(
    ("start", "size", "inside", "within", "reason"),
    [
        (2, 3, (2, 5), (0, 3), "wholly inside"),
        (-2, 5, (0, 3), (2, 5), "over the low edge"),
        (8, 5, (8, 10), (0, 2), "over the high edge"),
        (-3, 20, (0, 10), (3, 13), "larger than the scan"),
        (12, 4, (10, 10), (0, 0), "beyond the scan"),
        (-9, 4, (0, 0), (0, 0), "before the scan"),
    ],
)
def test_box_is_clipped(start: int, size: int, inside: tuple[int, int], within: tuple[int, int], reason: str) -> None:
    grid, own = clip_box((start, 0, 0), (size, 1, 1), (10, 1, 1))
    assert (grid[0], own[0]) == (slice(*inside), slice(*within)), reason


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(-20, 80)] * 3), st.tuples(*[st.integers(1, 40)] * 3))
def test_any_patch_equals_the_padded_volume(small_case: Any, start: Index, size: Index) -> None:
    lake, row, image, bits = small_case
    margin = 120
    box = tuple(slice(begin + margin, begin + margin + length) for begin, length in zip(start, size, strict=True))
    expected = np.pad(image, margin, constant_values=-1024)[box]
    expected_bits = np.pad(bits, [(0, 0), *[(margin, margin)] * 3])[(slice(None), *box)]
    inside = np.pad(np.ones(image.shape, dtype=bool), margin)[box]
    got = lake.read_patch(row, start, size)
    np.testing.assert_array_equal(got.array, expected)
    np.testing.assert_array_equal(lake.read_bits_patch(row, "human", start, size).array, expected_bits)
    valid = np.zeros(size, dtype=bool)
    valid[got.valid] = True
    np.testing.assert_array_equal(valid, inside)
    assert got.array.transpose(2, 1, 0).flags.c_contiguous


@pytest.fixture(scope="module")
def small_case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, dict[str, Any], NDArray[Any], NDArray[Any]]:
    return _stored(tmp_path_factory.mktemp("patches"))


def _stored(root: Path) -> tuple[Lake, dict[str, Any], NDArray[Any], NDArray[Any]]:
    generator = np.random.default_rng(3)
    image = generator.integers(-1024, 2000, (40, 33, 7), dtype=np.int16)
    bits = generator.integers(0, 2**31, (2, 40, 33, 7), dtype=np.uint32)
    affine = np.diag([0.8, 1.5, 2.5, 1])
    lake = Lake(root)
    stored = lake.write_case("kits", "case_1", "ab" * 32, Volume(image, affine), {}, {"human": bits})
    row = {"case_id": "kits/case_1", "path": stored.path, "manifest": stored.manifest.to_json()}
    return lake, row, image, bits


def test_box_outside_the_grid_is_an_index_error(ingested: Any, lake: Lake) -> None:
    stored = lake.open_image(ingested())
    with pytest.raises(IndexError, match=r"axis Z.*0\.\.66"):
        stored.read((slice(0, 5), slice(0, 37), slice(0, 67)))
    with pytest.raises(IndexError, match="axis X"):
        stored.read((slice(-1, 5), slice(0, 37), slice(0, 66)))


def damage(path: Path, fault: str) -> None:
    content = bytearray(path.read_bytes())
    if fault == "deleted":
        path.unlink()
    elif fault == "flipped":
        content[10] ^= 0x40
        path.write_bytes(content)
    else:
        path.write_bytes(bytes({"emptied": b"", "truncated": content[:-1], "longer": content + b"x"}[fault]))


@pytest.mark.parametrize("fault", ["deleted", "emptied", "truncated", "longer"])
@pytest.mark.parametrize("file", [SHARD, "1/c/0/0/0", "0/zarr.json", "zarr.json"])
def test_opening_an_image_with_a_missing_or_torn_file_raises(ingested: Any, lake: Lake, fault: str, file: str) -> None:
    row = ingested()
    damage(lake.root / row["path"] / file, fault)
    with pytest.raises(LakeDamage) as caught:
        lake.open_image(row)
    assert (caught.value.case_id, caught.value.file) == ("kits/case_1", f"{row['path']}/{file}")
    assert "ingest the case again" in str(caught.value)


@pytest.mark.parametrize("file", ["0/zarr.json", "zarr.json"])
def test_an_altered_metadata_file_raises_at_opening(ingested: Any, lake: Lake, file: str) -> None:
    row = ingested()
    damage(lake.root / row["path"] / file, "flipped")
    with pytest.raises(LakeDamage, match="SHA-256"):
        lake.open_image(row)


def test_damage_to_labels_raises_for_the_labels_only(ingested: Any, lake: Lake) -> None:
    row = ingested()
    damage(lake.root / row["path"] / LABEL_SHARD, "deleted")
    lake.open_image(row).read()
    with pytest.raises(LakeDamage, match="labels/human/0/c/0/0/0/0"):
        lake.open_bits(row, "human")


@pytest.mark.parametrize("pipeline", [None, layout.ZARRS, layout.ZARR_PYTHON])
@pytest.mark.parametrize("fault", ["deleted", "emptied", "flipped", "truncated"])
@pytest.mark.parametrize("labels", [False, True])
def test_damage_after_opening_raises_at_the_next_read(
    ingested: Any, lake: Lake, monkeypatch: pytest.MonkeyPatch, pipeline: str | None, fault: str, labels: bool
) -> None:
    if pipeline is not None:  # arrays that the direct reader leaves to zarr
        monkeypatch.setattr(layout, "codec_pipeline", lambda: pipeline)
        monkeypatch.setattr(Shard, "of", lambda *_: None)
    row = ingested()
    stored = lake.open_bits(row, "human") if labels else lake.open_image(row)
    assert (stored.shard is None) == (pipeline is not None)
    expected = make_label() if labels else make_scan().array
    np.testing.assert_array_equal(stored.read(), expected)
    damage(lake.root / row["path"] / (LABEL_SHARD if labels else SHARD), fault)
    with pytest.raises(LakeDamage, match="kits/case_1"):
        stored.read()


def test_a_shard_of_another_case_raises(ingested: Any, lake: Lake) -> None:
    row, other = ingested(), ingested(native_id="case_2", seed=5)
    shutil.copy(lake.root / other["path"] / SHARD, lake.root / row["path"] / SHARD)
    with pytest.raises(LakeDamage, match="bytes"):
        lake.open_image(row)


def test_an_array_of_an_earlier_lake_without_noted_checksums_is_hashed(
    ingested: Any, lake: Lake, tables: Tables, case_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.shard.WHOLE_CHECK_BYTES", 0)
    row = ingested()
    folder = lake.root / row["path"]
    for path in folder.rglob("zarr.json"):
        metadata = json.loads(path.read_text())
        metadata.get("attributes", {}).pop(ATTRIBUTE, None)
        path.write_text(json.dumps(metadata))
    manifest = build_manifest(folder, leave_out=("labels/zarr.json",)).to_json()
    tables.commit_case({**case_row("kits", "case_1", path=row["path"]), "manifest": manifest})
    old = dict(tables.cases().iloc[0])
    np.testing.assert_array_equal(lake.open_image(old).read(), make_scan().array)
    damage(folder / SHARD, "flipped")
    with pytest.raises(LakeDamage, match="SHA-256"):
        Lake(lake.root).open_image(old)
    assert [item.file for item in verify(tables, lake, read_data=True) if "labels" not in item.file] == [
        f"{row['path']}/{SHARD}"
    ]


def test_an_annotation_that_the_row_does_not_list_is_never_read(
    ingested: Any, lake: Lake, tables: Tables, label: Any, label_row: Any
) -> None:
    row = ingested()
    manifest = lake.write_annotation(row["path"], "pseudo-v1-00ff", label(1))
    with pytest.raises(LakeDamage, match="nothing of it in the row's manifest"):
        lake.open_bits(row, "pseudo-v1-00ff")
    tables.commit_labels([label_row(row, "liver", "pseudo-v1-00ff", manifest=manifest.to_json())])
    pseudo = dict(tables.labels(annotation="pseudo-v1-00ff").iloc[0])
    np.testing.assert_array_equal(lake.open_bits(pseudo, "pseudo-v1-00ff").read(), label(1))


def test_arrays_are_kept_open_and_the_oldest_let_go(ingested: Any, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ingested(native_id=f"case_{number}") for number in range(3)]
    monkeypatch.setattr(lake_module, "OPEN_ARRAYS", 2)
    first = lake.open_image(rows[0])
    assert lake.open_image(rows[0]) is first
    lake.open_image(rows[1])
    lake.open_image(rows[2])
    assert lake.open_image(rows[0]) is not first


def test_a_forked_child_reads_too(ingested: Any, lake: Lake) -> None:
    row = ingested()
    expected = int(lake.open_image(row).read().sum(dtype=np.int64))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if int(lake.open_image(row).read().sum(dtype=np.int64)) == expected else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_manifest_of_another_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected the JSON"):
        Manifest.from_json('{"something": 1}')
    assert lake_read.clip_box((0, 0, 0), (1, 1, 1), (1, 1, 1))[0] == (slice(0, 1),) * 3
