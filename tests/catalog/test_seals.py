"""All of a shard against the checksums noted when it was written: whatever differs is found, wherever it lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog import layout, seals
from catalog.seals import noted_checksums, wrong_in


def written(folder: Path, seed: int) -> tuple[Path, NDArray[np.uint32]]:
    """Write an array of three chunks of noise, and return its shard and what was noted of it."""
    values = np.random.default_rng(seed).integers(-32767, 32768, (96, 32, 32)).astype(np.int16)
    with layout.written_together():
        layout.write_array(folder, values, layout.IMAGE_FILL, ("z", "y", "x"))
    noted = noted_checksums(json.loads((folder / "zarr.json").read_text())["attributes"])
    assert noted is not None
    return folder / "c/0/0/0", noted


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint32]]:
    return written(tmp_path_factory.mktemp("seals") / "0", 0)


def test_one_checksum_a_chunk_is_noted_and_a_sound_shard_has_them(sound: Any) -> None:
    shard, noted = sound
    assert noted.shape == (3,)
    assert wrong_in(shard, noted) is None


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 10**7), bit=st.integers(0, 7), block=st.sampled_from([1, 2**18]))
def test_a_flipped_bit_anywhere_is_found(sound: Any, at: int, bit: int, block: int) -> None:
    shard, noted = sound
    before = shard.read_bytes()
    content = bytearray(before)
    content[at % len(content)] ^= 1 << bit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seals, "_READ_BYTES", block)
        try:
            shard.write_bytes(content)
            assert wrong_in(shard, noted)
        finally:
            shard.write_bytes(before)


def test_another_shard_and_other_lengths_are_found(sound: Any, tmp_path: Path) -> None:
    shard, noted = sound
    other, _ = written(tmp_path / "other", 1)
    assert other.stat().st_size == shard.stat().st_size
    found = wrong_in(other, noted)
    assert found is not None
    assert "of other content" in found
    content = shard.read_bytes()
    for torn in (b"", content[:-1], content[1:], content + b"\0", content[:20]):
        other.write_bytes(torn)
        assert wrong_in(other, noted)
