"""The three anatomical rules on tiny masks."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation

from datasets_registry.taxonomy import class_info
from imaging.bits import empty_bits, get_channel, set_channel
from imaging.components import largest_components
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


def mask_of(bits, name):
    return get_channel(bits, class_info(name).channel)


def voxels(bits, name):
    return int(mask_of(bits, name).sum())


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


def test_what_lies_far_from_a_lesion_changes_nothing_about_it():
    """The rules look at the box around a lesion only; a parent across its edge counts as in the whole scan."""
    random = np.random.default_rng(1)
    names = ("right_kidney", "left_kidney", "kidney_tumor", "kidney_cyst", "liver", "liver_tumor")
    for _ in range(40):
        bits = empty_bits(SHAPE, 32)
        for name in names:
            seeds = random.random(SHAPE) < random.choice([0.0, 0.01, 0.03, 0.2])
            set_channel(bits, class_info(name).channel, seeds)
        cleaned = clean(bits, names, reach_voxels=1)
        for lesion, parents in (("kidney_tumor", names[:2]), ("liver_tumor", ("liver",))):
            whole = {name: largest_components(mask_of(bits, name), class_info(name).components) for name in parents}
            near = np.any([binary_dilation(mask, np.ones((3, 3, 3))) for mask in whole.values()], axis=0)
            assert np.array_equal(mask_of(cleaned.bits, lesion), mask_of(bits, lesion) & near)
            inside = np.any([mask_of(cleaned.bits, name) for name in parents], axis=0)
            assert not (mask_of(cleaned.bits, lesion) & ~inside).any()
