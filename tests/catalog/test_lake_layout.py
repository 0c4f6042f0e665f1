"""Arrays on disk: one shard, whole; coarser levels by hand; the OME-Zarr validator agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05 import Image

from catalog import layout, ome
from catalog.lake import Lake
from catalog.manifest import build_manifest
from imaging.volume import Volume


def write(folder: Path, values: NDArray[np.int16]) -> None:
    with layout.written_together():
        layout.write_array(folder, values, layout.IMAGE_FILL, ome.SPACE)


def test_coarser_image_holds_means_rounded_half_up() -> None:
    # Z, Y, X = 2, 2, 3: the last column stands alone and is averaged with itself.
    fine = np.array([[[0, 1, 7], [2, 3, 7]], [[4, 5, 8], [6, 7, 8]]], dtype=np.int16)
    # (0 + 1 + ... + 7) / 8 = 3.5 -> 4; (7 + 7 + 8 + 8) * 2 / 8 = 7.5 -> 8
    assert layout.halve_image(fine).tolist() == [[[4, 8]]]
    assert layout.halve_image(-fine).tolist() == [[[-3, -7]]]


def test_coarser_bits_hold_every_class_found() -> None:
    fine = np.zeros((2, 1, 2, 3), dtype=np.uint32)
    fine[0, 0, 1, 1], fine[0, 0, 0, 0], fine[1, 0, 1, 2] = 4, 1, 2**31
    assert layout.halve_bits(fine).tolist() == [[[[5, 0]]], [[[0, 2**31]]]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (32, 32, 32), (33, 5, 64)])
def test_array_is_one_shard_with_a_checksum_in_every_chunk(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).integers(-1024, 3000, shape, dtype=np.int16)
    write(tmp_path / "0", values)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == ["0/c/0/0/0", "0/zarr.json"]
    metadata = json.loads((tmp_path / "0/zarr.json").read_text())
    sharding = metadata["codecs"][0]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [layout.CHUNK] * 3
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "blosc", "crc32c"]
    assert metadata["fill_value"] == layout.IMAGE_FILL
    np.testing.assert_array_equal(layout.open_array(tmp_path / "0")[...], values)


def test_both_codec_pipelines_read_the_same_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(-1024, 3000, (33, 40, 35), dtype=np.int16)
    for writer in (layout.ZARRS, layout.ZARR_PYTHON):
        monkeypatch.setattr(layout, "codec_pipeline", lambda name=writer: name)
        folder = tmp_path / writer
        write(folder, values)
        for reader in (layout.ZARRS, layout.ZARR_PYTHON):
            monkeypatch.setattr(layout, "codec_pipeline", lambda name=reader: name)
            np.testing.assert_array_equal(layout.open_array(folder)[3:33, 1:39, 30:35], values[3:33, 1:39, 30:35])


@pytest.mark.parametrize("shape", [(3, 4, 5), (66, 37, 5), (1, 70, 66, 97)])
def test_both_codec_pipelines_write_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    kind: Any = np.int16 if len(shape) == 3 else np.uint32
    values = np.random.default_rng(1).integers(0, 900, shape).astype(kind)
    axes = ("c", "z", "y", "x")[-len(shape) :]
    for pipeline in (layout.ZARRS, layout.ZARR_PYTHON):
        monkeypatch.setattr(layout, "codec_pipeline", lambda chosen=pipeline: chosen)
        with layout.written_together():
            layout.write_array(tmp_path / pipeline, values, layout.IMAGE_FILL if kind is np.int16 else 7, axes)
        np.testing.assert_array_equal(layout.open_array(tmp_path / pipeline)[...], values)
    assert build_manifest(tmp_path / layout.ZARRS) == build_manifest(tmp_path / layout.ZARR_PYTHON)


def test_zarrs_is_used_when_it_imports_and_not_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layout.codec_pipeline() == layout.ZARRS
    monkeypatch.setattr(layout, "_zarrs_imports", lambda: False)
    assert layout.codec_pipeline() == layout.ZARR_PYTHON


def test_opening_leaves_the_process_wide_settings_alone(tmp_path: Path) -> None:
    before = zarr.config.get("codec_pipeline.path"), zarr.config.get("threading.max_workers")
    write(tmp_path / "0", np.zeros((2, 2, 2), np.int16))
    layout.open_array(tmp_path / "0")
    assert (zarr.config.get("codec_pipeline.path"), zarr.config.get("threading.max_workers")) == before


@pytest.mark.parametrize("words", [2, 5])  # 33 and 130 classes
def test_stored_case_is_valid_ome_zarr(lake: Lake, scan: Any, label: Any, words: int) -> None:
    image: Volume = scan()
    stored = lake.write_case("kits", "case_1", "ab" * 32, image, {}, {"human": label(words=words)})
    lake.write_annotation(stored.path, "pseudo-v1-00ff", label(1, words=words))
    group: Any = zarr.open_group(lake.root / stored.path, mode="r")
    model = Image.from_zarr(group)
    assert model.labels is not None
    assert sorted(model.labels.ome_attributes.labels) == ["human", "pseudo-v1-00ff"]
    multiscale = model.ome_attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
    transformations: Any = multiscale.datasets[1].coordinateTransformations
    scale, translation = transformations
    # Spacing 0.8, 1.5, 2.5 mm, origin -11, 20.5, -300 along X, Y, Z; a coarse voxel is centred between two fine ones.
    assert scale.scale == pytest.approx([5.0, 3.0, 1.6])
    assert translation.translation == pytest.approx([-300 + 1.25, 20.5 + 0.75, -11 + 0.4])
    assert group["1"].shape == (33, 19, 3)
    assert group["labels/human/2"].shape == (words, 17, 10, 2)
    assert group["labels/human/0"].metadata.dimension_names == ("c", "z", "y", "x")


def test_an_array_is_not_written_where_threads_could_change_its_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written_together"):
        layout.write_array(tmp_path / "0", np.zeros((2, 2, 2), np.int16), layout.IMAGE_FILL, ome.SPACE)
