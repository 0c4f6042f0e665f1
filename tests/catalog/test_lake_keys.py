"""Equal scans and equal processing get equal keys; a difference that matters gets another."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.keys import case_id, content_sha256, ingest_key, split_group

AFFINE = np.array([[0.8, 0, 0, -11], [0, 1.5, 0, 20.5], [0, 0, 2.5, -300], [0, 0, 0, 1]])
VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 12


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_content_ignores_type_and_memory_order(dtype: str, order: Literal["C", "F"]) -> None:
    again = VOXELS.astype(dtype, order=order)
    assert content_sha256(again, AFFINE) == content_sha256(VOXELS, AFFINE)


def test_content_sees_one_voxel_shape_and_geometry() -> None:
    changed = VOXELS.copy()
    changed[1, 2, 3] += 1
    moved = AFFINE.copy()
    moved[0, 3] += 0.01
    hashes = {
        content_sha256(VOXELS, AFFINE),
        content_sha256(changed, AFFINE),
        content_sha256(VOXELS.reshape(3, 2, 4), AFFINE),
        content_sha256(VOXELS + 0.5, AFFINE),
        content_sha256(VOXELS.astype(np.int32) + 100_000, AFFINE),
        content_sha256(VOXELS, moved),
    }
    assert len(hashes) == 6


def test_content_ignores_rounding_of_the_header() -> None:
    rounded = AFFINE + 1e-6
    assert content_sha256(VOXELS, rounded) == content_sha256(VOXELS, AFFINE)
    minus_zero = AFFINE.copy()
    minus_zero[0, 1] = -0.0
    assert content_sha256(VOXELS, minus_zero) == content_sha256(VOXELS, AFFINE)


def test_content_is_the_same_however_it_is_cut_into_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content_sha256(VOXELS, AFFINE)
    monkeypatch.setattr("catalog.keys._SLAB_BYTES", 1)
    assert content_sha256(VOXELS, AFFINE) == whole


def test_split_group_is_the_beginning_of_the_content_hash() -> None:
    assert split_group("0123456789abcdef" * 4) == "0123456789abcdef"


@given(st.lists(st.sampled_from(["a", "ab", "b", ""]), min_size=3, max_size=3))
def test_ingest_key_keeps_its_parts_apart(parts: list[str]) -> None:
    raw, card, version = parts
    same = ingest_key(raw, card, version, (1.5, 1.5, 1.5))
    assert same == ingest_key(raw, card, version, [np.float64(1.5)] * 3)
    assert same != ingest_key(raw + "x", card, version, (1.5, 1.5, 1.5))
    assert same != ingest_key(raw, card, version, (1.5, 1.5, 2))
    assert len(same) == hashlib.sha256().digest_size * 2


def test_case_id_joins_safe_names_only() -> None:
    assert case_id("kits", "case_00001") == "kits/case_00001"
    for bad in ("", ".", "..", "a/b", "../x", "a b", "x" * 101, "é", ".hidden"):
        with pytest.raises(ValueError, match="native id"):
            case_id("kits", bad)
