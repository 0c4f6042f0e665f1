"""Nobody writes a part of a shard: not by a region, not by a Dask array, not through an opened array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from catalog import layout, shards
from catalog.lake import Lake
from imaging.volume import Volume


def two_shards(folder: Path) -> zarr.Array[Any]:
    """Return an array of 10 x 6 in shards of 4 x 6, chunks of 2 x 3: two whole shards and one cut short."""
    return zarr.create_array(store=folder, shape=(10, 6), shards=(4, 6), chunks=(2, 3), dtype="i2", fill_value=-1)


@pytest.mark.parametrize(
    ("start", "shape", "reason"),
    [
        ((0, 0), (4, 6), "one shard"),
        ((4, 0), (6, 6), "from a border of the shard grid to the end of the array"),
        ((0, 0), (10, 6), "all"),
    ],
)
def test_a_block_of_whole_shards_is_written(
    tmp_path: Path, start: tuple[int, int], shape: tuple[int, int], reason: str
) -> None:
    target = two_shards(tmp_path)
    shards.write_region(target, start, np.full(shape, 7, np.int16))
    expected = np.full((10, 6), -1, np.int16)
    expected[start[0] : start[0] + shape[0]] = 7
    np.testing.assert_array_equal(target[...], expected, reason)


@pytest.mark.parametrize(
    ("start", "shape", "reason"),
    [
        ((0, 0), (2, 3), "one chunk"),
        ((0, 0), (4, 3), "half of a shard along one axis"),
        ((2, 0), (4, 6), "a shard's shape across two shards"),
        ((4, 0), (3, 6), "nearly to the end"),
        ((8, 0), (4, 6), "beyond the end"),
    ],
)
def test_a_block_of_part_of_a_shard_is_refused_with_both_shapes(
    tmp_path: Path, start: tuple[int, int], shape: tuple[int, int], reason: str
) -> None:
    target = two_shards(tmp_path)
    with pytest.raises(ValueError, match=rf"block of shape \({shape[0]}, {shape[1]}\).*whole shards of \(4, 6\)"):
        shards.write_region(target, start, np.full(shape, 7, np.int16))
    assert (target[...] == -1).all(), reason


def test_a_dask_array_is_written_when_its_chunk_is_the_shard(lake: Lake, scan: Any, label: Any) -> None:
    image = scan()
    whole = Volume(da.from_array(image.array, chunks=-1), image.affine, image.steps)  # type: ignore[arg-type]
    stored = lake.write_case("kits", "case_1", "ab" * 32, whole, {}, {"human": da.from_array(label(), chunks=-1)})
    manifest = lake.write_annotation(stored.path, "pseudo-v1-00ff", da.from_array(label(1), chunks=-1))
    row = {"case_id": "kits/case_1", "path": stored.path, "manifest": stored.manifest.to_json()}
    np.testing.assert_array_equal(lake.open_image(row).read(), image.array)
    np.testing.assert_array_equal(lake.open_bits(row, "human").read(), label())
    pseudo = {**row, "manifest": manifest.to_json()}
    np.testing.assert_array_equal(lake.open_bits(pseudo, "pseudo-v1-00ff").read(), label(1))


def test_a_dask_array_whose_chunks_divide_the_shard_is_refused_with_both_shapes(
    lake: Lake, scan: Any, label: Any
) -> None:
    image = scan()
    divided = Volume(da.from_array(image.array, chunks=(5, 32, 32)), image.affine, image.steps)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"kits/case_1: Dask array in chunks of \(5, 32, 32\).*\(5, 37, 66\).*rechunk"):
        lake.write_case("kits", "case_1", "ab" * 32, divided, {})
    assert not list(lake.root.rglob("*.zarr"))
    stored = lake.write_case("kits", "case_1", "ab" * 32, image, {})
    bits = da.from_array(label(), chunks=(1, 5, 37, 32))
    with pytest.raises(ValueError, match=r"pseudo-v1-00ff: Dask array in chunks of \(1, 5, 37, 32\)"):
        lake.write_annotation(stored.path, "pseudo-v1-00ff", bits)


@pytest.mark.parametrize("pipeline", [layout.ZARRS, layout.ZARR_PYTHON])
def test_arrays_opened_from_the_lake_cannot_be_written(
    ingested: Any, lake: Lake, monkeypatch: pytest.MonkeyPatch, pipeline: str
) -> None:
    monkeypatch.setattr(layout, "codec_pipeline", lambda: pipeline)
    stored = lake.open_image(ingested())
    before = stored.read()
    with pytest.raises(ValueError, match="read-only"):
        stored.array[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        stored.array.append(np.zeros((1, 37, 5), np.int16))
    np.testing.assert_array_equal(stored.read(), before)
