"""Regions of class bits: the same parts and cavities as found mask by mask, in tables for all classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from imaging.bits import Bits, empty_bits, get_channel, set_channel
from imaging.components import label_parts
from imaging.regions import Regions, find_regions, look_up

ALL = np.full(2, 0xFFFFFFFF, dtype=np.uint32)


def regions_of(bits: Bits, managed: np.ndarray = ALL, right: np.ndarray | None = None) -> Regions:
    return find_regions(bits, managed[: bits.shape[0]], (0, 0, 0, *bits.shape[1:]), right)


def has(regions: Regions, channel: int) -> np.ndarray:
    return (regions.words[:, channel // 32] >> np.uint32(channel % 32) & 1) != 0


def test_voxels_of_the_same_classes_that_share_a_face_are_one_region() -> None:
    bits = empty_bits((4, 1, 1), 32)
    set_channel(bits, 0, np.array([1, 1, 1, 0], bool).reshape(4, 1, 1))
    set_channel(bits, 31, np.array([0, 0, 1, 0], bool).reshape(4, 1, 1))
    regions = regions_of(bits)
    by_words = {int(word): int(n) for word, n in zip(regions.words[1:, 0], regions.voxels[1:], strict=True)}
    assert by_words == {0b1: 2, 2**31 + 1: 1, 0: 1}
    first, second = regions.labels[0, 0, 0], regions.labels[2, 0, 0]
    assert {tuple(sorted(pair)) for pair in regions.touching.tolist()} == {tuple(sorted((int(first), int(second))))}
    assert len(regions.sharing) == 2


def test_regions_end_at_the_middle_and_at_the_border() -> None:
    bits = empty_bits((6, 3, 3), 1)
    set_channel(bits, 0, np.ones((6, 1, 1), bool) & (np.arange(9).reshape(1, 3, 3) == 4))
    right = np.arange(6)[:, None, None] >= 4
    found = find_regions(bits, ALL[:1], (0, 1, 1, 6, 2, 2), right)
    assert [(int(n), bool(side)) for n, side in zip(found.voxels[1:], found.right[1:], strict=True)] == [
        (4, False),
        (2, True),
    ]
    assert found.on_border.tolist() == [False, True, True]  # at the ends of the first axis
    assert found.on_edge.tolist() == [False, True, True]
    inner = find_regions(bits, ALL[:1], (1, 1, 1, 5, 2, 2), right[1:5])
    assert not inner.on_border.any()


def test_bits_that_are_not_managed_count_as_unset() -> None:
    bits = np.array([3, 1, 2, 0], dtype=np.uint32).reshape(1, 4, 1, 1)
    regions = regions_of(bits, np.array([1], dtype=np.uint32))
    assert regions.words[1:, 0].tolist() == [1, 0]
    assert regions.voxels.tolist() == [0, 2, 2]


@st.composite
def noisy(draw: st.DrawFn) -> Bits:
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = empty_bits(shape, draw(st.sampled_from([3, 40])), draw(st.sampled_from(["C", "F"])))
    for channel in (0, 1, *([33] if len(bits) == 2 else [])):
        set_channel(bits, channel, random.random(shape) < random.choice([0.1, 0.5, 0.9]))
    return bits


@given(noisy(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_parts_and_cavities_are_those_of_each_mask(bits: Bits, cut: bool) -> None:
    right = np.arange(bits.shape[1])[:, None, None] >= bits.shape[1] // 2 if cut else None
    regions = regions_of(bits, right=right)
    assert int(regions.voxels.sum()) == bits[0].size
    for channel in (0, 1, *([33] if len(bits) == 2 else [])):
        mask = get_channel(bits, channel)
        chosen = has(regions, channel)
        assert np.array_equal(look_up(chosen, regions.labels), mask)
        number, count = regions.parts(chosen)
        expected, expected_count = label_parts(mask)
        assert count == expected_count
        painted = look_up(number, regions.labels)
        # the same parts, whatever their numbers
        assert len(np.unique(np.stack([painted[mask], expected[mask]]), axis=1).T) == count
        filled = ndimage.binary_fill_holes(mask)
        assert np.array_equal(look_up(regions.cavities(chosen), regions.labels), filled & ~mask)


@pytest.mark.parametrize("order", ["C", "F"])
def test_looking_up_keeps_the_memory_order(order: str) -> None:
    labels = np.array(np.arange(24).reshape(2, 3, 4) % 5, dtype=np.uint32, order=order)  # type: ignore[call-overload]
    table = np.array([0, 10, 20, 30, 40])
    assert np.array_equal(look_up(table, labels), labels * 10)
    assert look_up(table, labels).flags.f_contiguous == labels.flags.f_contiguous
