"""The three anatomical rules on tiny masks."""

from __future__ import annotations

import numpy as np

from datasets_registry.taxonomy import class_info
from imaging.bits import empty_bits, get_channel, set_channel
from models.postprocess import clean

SHAPE = (12, 7, 5)


def bits_of(**boxes):
    bits = empty_bits(SHAPE, 32)
    for name, several in boxes.items():
        for box in several:
            mask = np.zeros(SHAPE, bool)
            mask[tuple(slice(a, b) for a, b in box)] = True
            set_channel(bits, class_info(name).channel, mask)
    return bits


def voxels(bits, name):
    return int(get_channel(bits, class_info(name).channel).sum())


def test_one_part_organs_keep_their_largest_part_and_colon_keeps_all():
    parts = [((0, 3), (0, 2), (0, 2)), ((6, 7), (0, 1), (0, 1))]
    bits = bits_of(liver=parts, colon=parts)
    cleaned = clean(bits)
    assert voxels(cleaned.bits, "liver") == 12
    assert voxels(cleaned.bits, "colon") == 13
    assert cleaned.removed == {"liver": 1}
    assert cleaned.added == {}
    assert voxels(bits, "liver") == 13  # the input is left alone


def test_tumours_far_from_their_organ_go_and_near_ones_join_it():
    bits = bits_of(
        liver=[((0, 4), (0, 4), (0, 4))],
        liver_tumor=[((3, 6), (0, 1), (0, 1)), ((10, 11), (6, 7), (4, 5))],  # 1 inside, 2 beside; 1 far away
    )
    cleaned = clean(bits, reach_voxels=2)
    assert voxels(cleaned.bits, "liver_tumor") == 3
    assert voxels(cleaned.bits, "liver") == 64 + 2
    assert cleaned.removed == {"liver_tumor": 1}
    assert cleaned.added == {"liver": 2}


def test_a_kidney_tumour_joins_the_nearer_kidney_only():
    bits = bits_of(
        right_kidney=[((0, 3), (0, 3), (0, 3))],
        left_kidney=[((9, 12), (0, 3), (0, 3))],
        kidney_tumor=[((3, 4), (0, 1), (0, 1))],
    )
    cleaned = clean(bits)
    assert cleaned.added == {"right_kidney": 1}


def test_a_lesion_without_its_organ_goes_unless_nobody_asked_for_the_organ():
    bits = bits_of(liver_tumor=[((0, 1), (0, 1), (0, 1))])
    assert voxels(clean(bits).bits, "liver_tumor") == 0
    assert voxels(clean(bits, ["liver_tumor"]).bits, "liver_tumor") == 1


def test_empty_stays_empty():
    cleaned = clean(bits_of())
    assert not cleaned.bits.any()
    assert (cleaned.removed, cleaned.added) == ({}, {})
