"""Right and left of predicted masks by geometry, and when it is left alone."""

from __future__ import annotations

import numpy as np
from clean_masks import AFFINE, bits_of, box, cleaned, mask, mask_of, voxels

from models.postprocess import clean

LIVER, SPLEEN = [box((8, 12), (4, 7), (2, 5))], [box((0, 3), (4, 7), (2, 5))]  # as usual: liver on the right
RIGHT, LEFT = box((8, 10), (0, 2), (0, 2)), box((2, 4), (0, 2), (0, 2))


def test_a_left_kidney_on_the_patients_right_becomes_the_right_one() -> None:
    result = cleaned(bits_of(liver=LIVER, spleen=SPLEEN, left_kidney=[RIGHT, LEFT]))
    assert np.array_equal(mask_of(result.bits, "right_kidney"), mask(RIGHT))
    assert np.array_equal(mask_of(result.bits, "left_kidney"), mask(LEFT))
    assert result.record["right_kidney"] == [{"rule": "sides", "removed": 0, "added": 8}]
    assert result.record["left_kidney"] == [{"rule": "sides", "removed": 8, "added": 0}]


def test_kidneys_exchanged_in_an_otherwise_usual_scan_change_back() -> None:
    result = cleaned(bits_of(liver=LIVER, spleen=SPLEEN, left_kidney=[RIGHT], right_kidney=[LEFT]))
    assert np.array_equal(mask_of(result.bits, "right_kidney"), mask(RIGHT))
    assert np.array_equal(mask_of(result.bits, "left_kidney"), mask(LEFT))


def test_joined_lungs_are_parted_at_the_middle() -> None:
    result = cleaned(bits_of(liver=LIVER, right_lung=[box((1, 11), (0, 3), (0, 5))]))
    assert np.array_equal(mask_of(result.bits, "right_lung"), mask(box((6, 11), (0, 3), (0, 5))))
    assert np.array_equal(mask_of(result.bits, "left_lung"), mask(box((1, 6), (0, 3), (0, 5))))


def test_a_horseshoe_kidney_is_parted_at_the_middle() -> None:
    bridge = box((4, 8), (0, 1), (0, 1))
    result = cleaned(bits_of(liver=LIVER, left_kidney=[RIGHT, LEFT, bridge]))
    assert voxels(result.bits, "right_kidney") == voxels(result.bits, "left_kidney") == 10
    assert np.argwhere(mask_of(result.bits, "right_kidney"))[:, 0].min() == 6


def test_a_lung_that_reaches_a_little_over_the_middle_stays_whole() -> None:
    lung = box((5, 12), (0, 3), (0, 5))  # one of seven columns, 14 %, lies on the left
    result = cleaned(bits_of(liver=LIVER, right_lung=[lung], left_lung=[box((0, 5), (0, 3), (0, 5))]))
    assert np.array_equal(mask_of(result.bits, "right_lung"), mask(lung))
    assert result.record == {}


def test_a_voxel_that_both_lungs_claim_belongs_to_its_side() -> None:
    bits = bits_of(liver=LIVER, right_lung=[box((5, 12), (0, 3))], left_lung=[box((0, 7), (0, 3))])
    result = cleaned(bits)
    assert np.array_equal(mask_of(result.bits, "right_lung"), mask(box((6, 12), (0, 3))))
    assert np.array_equal(mask_of(result.bits, "left_lung"), mask(box((0, 6), (0, 3))))


def test_the_middle_may_differ_from_slice_to_slice() -> None:
    middle = np.array([0.0, 0, 4, 4, 4])  # voxel 8 from the third slice on
    bits = bits_of(liver=LIVER, right_lung=[box((2, 12), (0, 2), (0, 5))])
    right = mask_of(clean(bits, affine=AFFINE, midline_x=middle).bits, "right_lung")
    assert np.array_equal(right, mask(box((6, 12), (0, 2), (0, 2)), box((8, 12), (0, 2), (2, 5))))


def test_a_mirrored_scan_or_situs_inversus_is_left_alone_and_told() -> None:
    mirrored = bits_of(spleen=LIVER, liver=SPLEEN, right_kidney=[LEFT], left_kidney=[RIGHT])
    result = cleaned(mirrored)
    assert np.array_equal(result.bits, mirrored)
    assert len(result.remarks) == 1
    assert result.remarks[0].startswith("sides: spleen, liver on the other side of the body than usual (2 of 2)")


def test_without_other_organs_a_pair_that_is_exchanged_as_a_whole_is_left_alone_and_told() -> None:
    exchanged = bits_of(right_kidney=[LEFT], left_kidney=[RIGHT])
    result = cleaned(exchanged)
    assert np.array_equal(result.bits, exchanged)
    assert "right kidney and left kidney on the other side" in result.remarks[0]
    # one stray part among kidneys in place is no such case
    stray = bits_of(right_kidney=[RIGHT], left_kidney=[LEFT, box((10, 11), (0, 1), (0, 1))])
    assert cleaned(stray).removed == {"left_kidney": 1}


def test_sides_wait_without_a_middle_and_without_the_partner() -> None:
    bits = bits_of(liver=LIVER, left_kidney=[RIGHT])
    assert voxels(clean(bits, affine=AFFINE).bits, "left_kidney") == 8
    assert voxels(cleaned(bits, ["left_kidney", "liver"]).bits, "left_kidney") == 8
    assert voxels(cleaned(bits, rules="-sides").bits, "left_kidney") == 8


def test_a_tumour_that_reaches_over_the_middle_does_not_part_its_kidney() -> None:
    kidney, tumour = box((8, 11), (0, 3), (0, 3)), box((3, 8), (0, 2), (0, 2))
    bits = bits_of(liver=LIVER, right_kidney=[kidney, tumour], left_kidney=[box((0, 2))], kidney_tumor=[tumour])
    once = cleaned(bits)
    assert np.array_equal(mask_of(once.bits, "right_kidney") & ~mask(tumour), mask(kidney))
    assert np.array_equal(cleaned(once.bits).bits, once.bits)


def test_a_part_made_of_nothing_but_a_tumour_keeps_its_side() -> None:
    for name, place in (("right_kidney", LEFT), ("left_kidney", RIGHT)):
        bits = bits_of(liver=LIVER, spleen=SPLEEN, kidney_tumor=[place], **{name: [place]})
        assert np.array_equal(cleaned(bits, rules="sides").bits, bits)
