"""Packing of overlapping classes into 32-bit words."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.bits import channel_boxes, count_voxels, empty_bits, get_channel, pack, set_channel, widened, words_for


def test_channel_33_is_the_first_bit_of_the_second_word() -> None:
    bits = empty_bits((2, 1, 1), 33)
    mask = np.array([True, False]).reshape(2, 1, 1)
    set_channel(bits, 32, mask)
    assert bits.shape == (2, 2, 1, 1)
    assert bits[:, :, 0, 0].tolist() == [[0, 0], [1, 0]]


def test_channel_31_is_the_highest_bit_of_the_first_word() -> None:
    bits = empty_bits((1, 1, 1), 32)
    set_channel(bits, 31, np.ones((1, 1, 1), dtype=bool))
    assert bits.ravel().tolist() == [2**31]


@pytest.mark.parametrize(("classes", "words"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3), (130, 5)])
def test_words_for(classes: int, words: int) -> None:
    assert words_for(classes) == words


@given(st.sampled_from([1, 32, 33, 130]), st.integers(0, 2**32 - 1))
def test_channels_of_what_was_packed_are_the_masks(classes: int, seed: int) -> None:
    masks = np.random.default_rng(seed).random((classes, 2, 3, 4)) < 0.4
    bits = pack(masks)
    assert np.array_equal([get_channel(bits, channel) for channel in range(classes)], masks)
    assert count_voxels(bits, classes).tolist() == masks.sum(axis=(1, 2, 3)).tolist()


def test_set_channel_adds_and_leaves_the_others() -> None:
    bits = pack(np.array([[[[True, False]]], [[[True, True]]]]))
    set_channel(bits, 0, np.array([[[False, True]]]))
    assert [get_channel(bits, channel).tolist() for channel in (0, 1)] == [[[[True, True]]]] * 2


def test_wrong_channel_shape_and_count_say_what_was_given() -> None:
    bits = empty_bits((2, 2, 2), 3)
    with pytest.raises(ValueError, match="channel 32 outside the 32 channels"):
        get_channel(bits, 32)
    with pytest.raises(ValueError, match=r"mask of shape \(2, 2, 3\)"):
        set_channel(bits, 0, np.zeros((2, 2, 3), dtype=bool))
    with pytest.raises(ValueError, match="1 words hold 32 channels, asked for 33"):
        count_voxels(bits, 33)
    with pytest.raises(ValueError, match="at least 1"):
        words_for(0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_boxes_of_all_channels(order: Literal["C", "F"]) -> None:
    bits = empty_bits((3, 4, 5), 33, order)
    bits[0, 0, 1, 2] = 1
    bits[0, 2, 3, 4] = 1 | 2**31
    bits[1, 1, 0, 3] = 1
    assert channel_boxes(bits) == {
        0: (0, 1, 2, 3, 4, 5),
        31: (2, 3, 4, 3, 4, 5),
        32: (1, 0, 3, 2, 1, 4),
    }
    assert channel_boxes(empty_bits((3, 4, 5), 33, order)) == {}


def test_bits_of_a_smaller_class_table_get_empty_words() -> None:
    bits = np.full((1, 2, 3, 4), 5, dtype=np.uint32)
    wide = widened(bits, 33)
    assert wide.shape == (2, 2, 3, 4)
    assert (wide[0] == 5).all()
    assert not wide[1].any()
    assert widened(bits, 32) is bits
