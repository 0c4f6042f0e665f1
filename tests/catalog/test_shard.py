"""The direct reader: the voxels that zarr gives for any box of any layout it takes, and an error where zarr gives
fill values, errors or other voxels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

from catalog import layout, seals
from catalog.errors import LakeDamage
from catalog.lake import Lake
from catalog.manifest import FileEntry, file_sha256
from catalog.shard import WHOLE_CHECK_BYTES, Shard

SHARD = "0/c/0/0/0"
PACKINGS: tuple[layout.Packing, ...] = (
    layout.IMAGE_CODEC,
    layout.BITS_CODEC,
    ("zstd", 1, "shuffle"),  # lakes written before lz4
    ("lz4", 1, "noshuffle"),
)


def write(
    folder: Path, values: NDArray[Any], chunk: tuple[int, ...], packing: layout.Packing, **options: Any
) -> zarr.Array[Any]:
    """Write one shard of chunks padded with fill, as the lake's writer does; options replace what it passes."""
    compressor, level, shuffle = packing
    lead = values.shape[:-3]
    blosc = BloscCodec(cname=compressor, clevel=level, shuffle=shuffle, typesize=values.dtype.itemsize)
    target = zarr.create_array(
        folder,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(*lead, *chunk),
        fill_value=layout.IMAGE_FILL if values.dtype == np.int16 else layout.BITS_FILL,
        **{
            "shards": (*lead, *(-(-n // size) * size for n, size in zip(values.shape[-3:], chunk, strict=True))),
            "compressors": [blosc, Crc32cCodec()],
            "config": {"write_empty_chunks": True},
            **options,
        },
    )
    target[...] = values
    return layout.open_array(folder)


def shard_of(folder: Path, array: zarr.Array[Any]) -> Shard | None:
    file = folder.joinpath("c", *["0"] * array.ndim)
    entry = FileEntry(file.stat().st_size, file_sha256(file)) if file.is_file() else FileEntry(0, "")
    return Shard.of(folder, "kits/case_1", "shard", array, entry)


def voxels(shape: tuple[int, ...], kind: type[Any]) -> NDArray[Any]:
    """Return noise with an empty corner, so that both constant and varied chunks occur."""
    values = np.random.default_rng(1).integers(0, 3000, shape).astype(kind)
    values[..., : shape[-3] // 2, :, :] = 0
    return values


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_box_of_any_layout_equals_what_zarr_reads(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * 3))
    chunk = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    lead, kind = data.draw(st.sampled_from([((), np.int16), ((1,), np.uint32), ((2,), np.uint32)]))
    folder = tmp_path_factory.mktemp("shard")
    array = write(folder, voxels((*lead, *shape), kind), chunk, data.draw(st.sampled_from(PACKINGS)))
    shard = shard_of(folder, array)
    assert shard is not None
    for _ in range(4):
        box = tuple(slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in shape)
        found = shard.read((box[0], box[1], box[2]))
        np.testing.assert_array_equal(found, array[(..., *box)])
        assert found.dtype == array.dtype
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[Any]]:
    folder = tmp_path_factory.mktemp("sound")
    values = voxels((12, 11, 10), np.int16)
    write(folder, values, (4, 5, 6), layout.IMAGE_CODEC)
    seals.note_checksums(zarr.open_array(folder, mode="r+"), folder)
    return folder, values


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), large=st.booleans(), opened_before=st.booleans())
def test_a_flipped_bit_anywhere_is_never_read_as_other_voxels(
    sound: tuple[Path, NDArray[Any]], at: int, bit: int, large: bool, opened_before: bool
) -> None:
    folder, values = sound
    file = folder / "c/0/0/0"
    before = file.read_bytes()
    # A large shard is not hashed when opened, so its chunks' own checksums have to tell.
    entry = FileEntry(len(before), file_sha256(file))
    content = bytearray(before)
    content[at % len(content)] ^= 1 << bit
    whole = (slice(0, 12), slice(0, 11), slice(0, 10))

    def opened() -> Shard:
        shard = Shard.of(folder, "kits/case_1", "shard", layout.open_array(folder), entry)
        assert shard is not None
        np.testing.assert_array_equal(shard.read(whole), values)
        return shard

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catalog.shard.WHOLE_CHECK_BYTES", 0 if large else WHOLE_CHECK_BYTES)
        try:
            kept = opened() if opened_before else None
            file.write_bytes(content)
            with pytest.raises(LakeDamage, match="kits/case_1: shard"):
                (kept or opened()).read(whole)
        finally:
            file.write_bytes(before)


def test_a_chunk_that_was_never_written_is_damage(tmp_path: Path) -> None:
    values = voxels((8, 4, 4), np.int16)
    values[:4] = layout.IMAGE_FILL
    array = write(tmp_path, values, (4, 4, 4), layout.IMAGE_CODEC, config={"write_empty_chunks": False})
    shard = shard_of(tmp_path, array)
    assert shard is not None
    np.testing.assert_array_equal(shard.read((slice(4, 8), slice(0, 4), slice(0, 4))), values[4:])
    with pytest.raises(LakeDamage, match="never written"):
        shard.read((slice(3, 5), slice(0, 4), slice(0, 4)))


@pytest.mark.parametrize(
    "options",
    [
        {"shards": None},
        {"shards": (4, 8, 8)},
        {"compressors": [ZstdCodec()]},
        {"compressors": [BloscCodec()]},
        {"serializer": BytesCodec(endian="big")},
        {"filters": [zarr.codecs.TransposeCodec(order=(2, 1, 0))]},
    ],
)
def test_other_layouts_are_left_to_zarr(tmp_path: Path, options: dict[str, Any]) -> None:
    array = write(tmp_path, voxels((8, 8, 8), np.int16), (4, 4, 4), layout.IMAGE_CODEC, **options)
    assert shard_of(tmp_path, array) is None


def _opened(lake: Lake, row: dict[str, Any]) -> tuple[Any, Path]:
    stored = lake.open_image(row)
    assert stored.shard is not None
    return stored, lake.root / row["path"] / SHARD


def test_a_shard_put_right_behind_an_open_handle_is_read_again(ingested: Any, lake: Lake) -> None:
    stored, file = _opened(lake, ingested())
    expected, content = stored.read(), file.read_bytes()
    file.unlink()
    with pytest.raises(LakeDamage, match="no readable file"):
        stored.read()
    file.write_bytes(content)
    np.testing.assert_array_equal(stored.read(), expected)


@pytest.mark.parametrize("when", ["before opening", "after opening"])
def test_another_sound_shard_of_the_same_length_is_not_read(ingested: Any, lake: Lake, scan: Any, when: str) -> None:
    row = ingested()
    file = lake.root / row["path"] / SHARD
    stored = lake.open_image(row)
    # The same voxels but one, in a stretch that lz4 keeps as it is: another valid shard of equal length.
    values = np.ascontiguousarray(stored.read().transpose(2, 1, 0))
    length = file.stat().st_size
    other = lake.root / "other"
    for place in np.ndindex(values.shape):
        changed = values.copy()
        changed[place] ^= 1
        shutil.rmtree(other, ignore_errors=True)
        with layout.written_together():
            layout.write_array(other, changed, layout.IMAGE_FILL, ("z", "y", "x"))
        if (other / "c/0/0/0").stat().st_size == length:
            break
    else:
        pytest.fail("no single voxel keeps the length; choose another scan")
    shutil.copy(other / "c/0/0/0", file)
    if when == "before opening":
        lake = Lake(lake.root)
        with pytest.raises(LakeDamage, match="SHA-256"):
            lake.open_image(row)
    else:
        with pytest.raises(LakeDamage, match="SHA-256"):
            stored.read()


def test_handles_are_closed_with_their_arrays(ingested: Any, lake: Lake) -> None:
    def handles() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = handles()
    stored, _ = _opened(lake, ingested())
    assert handles() == before + 1
    del stored
    lake._opened.clear()
    assert handles() == before
