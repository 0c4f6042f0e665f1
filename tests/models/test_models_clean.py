"""Each cleaning rule on tiny anisotropic masks; sides have a file of their own."""

from __future__ import annotations

import numpy as np
import pytest
from clean_masks import AFFINE, SHAPE, bits_of, box, cleaned, mask, mask_of, voxels

from datasets_registry.class_rules import rule_switches
from datasets_registry.taxonomy import all_classes
from imaging.bits import get_channel, set_channel
from imaging.components import count_components
from models.postprocess import _families, clean, needs_middle, rules_digest


def test_one_part_organs_keep_their_largest_part_and_portions_of_bowel_stay() -> None:
    parts = [box((0, 5), (0, 3), (0, 3)), box((8, 11), (4, 7), (1, 5))]  # 45 and 36 voxels
    result = cleaned(bits_of(liver=parts, colon=parts))
    assert np.array_equal(mask_of(result.bits, "liver"), mask(parts[0]))
    assert voxels(result.bits, "colon") == 81  # each of its parts has over 1 ml
    assert result.removed == {"liver": 36}
    assert result.added == {}
    assert result.record == {"liver": [{"rule": "largest_component", "removed": 36, "added": 0}]}


def test_the_input_is_left_alone_and_empty_stays_empty() -> None:
    bits = bits_of(liver=[box((0, 2)), box((5, 6))])
    before = bits.copy()
    cleaned(bits)
    assert np.array_equal(bits, before)
    nothing = cleaned(bits_of())
    assert not nothing.bits.any()
    assert (nothing.removed, nothing.added, nothing.record, nothing.remarks) == ({}, {}, {}, ())


def test_parts_that_touch_at_a_corner_are_one() -> None:
    corner = [box((0, 2), (0, 2), (0, 2)), box((2, 4), (2, 4), (2, 4))]
    assert voxels(cleaned(bits_of(spleen=corner)).bits, "spleen") == 16


def test_an_organ_one_voxel_thick_stays_whole() -> None:
    sheet = [box((2, 10), (3, 4), (0, 5))]
    assert voxels(cleaned(bits_of(spleen=sheet, liver=[box((7, 8))])).bits, "spleen") == 40


def test_lesions_below_their_least_volume_go() -> None:
    # 0.05 ml are two voxels of 0.03 ml, not one
    bits = bits_of(
        liver=[box((0, 12), (0, 7), (0, 5))], liver_tumor=[box((2, 3), (2, 3), (2, 3)), box((8, 10), (2, 3), (2, 3))]
    )
    result = cleaned(bits)
    assert np.array_equal(mask_of(result.bits, "liver_tumor"), mask(box((8, 10), (2, 3), (2, 3))))
    assert result.record == {"liver_tumor": [{"rule": "min_size", "removed": 1, "added": 0}]}


def test_a_lesion_that_the_scan_cuts_stays_however_small() -> None:
    bits = bits_of(liver=[box((0, 12), (0, 7), (0, 5))], liver_tumor=[box((3, 4), (3, 4), (4, 5))])
    assert voxels(cleaned(bits).bits, "liver_tumor") == 1


def test_a_lesion_reaches_its_margin_in_mm_and_no_further() -> None:
    # spacing 1 x 1 x 4 mm, margin 5 mm (more than the diagonal of 4.2 mm): five voxels along x, one along z
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    bits = bits_of(
        liver=[box((0, 3), (2, 4), (0, 2))], liver_tumor=[box((2, 11), (2, 3), (1, 2)), box((2, 3), (2, 3), (1, 5))]
    )
    result = clean(bits, affine=affine, switches=rule_switches("-min_size"))
    kept = mask(box((2, 8), (2, 3), (1, 2)), box((2, 3), (2, 3), (1, 3)))
    assert np.array_equal(mask_of(result.bits, "liver_tumor"), kept)
    assert result.removed == {"liver_tumor": 5}
    assert result.record["liver_tumor"] == [{"rule": "inside_organ", "removed": 5, "added": 0}]
    # the organ includes what is kept
    assert np.array_equal(mask_of(result.bits, "liver"), mask(box((0, 3), (2, 4), (0, 2))) | kept)
    assert result.record["liver"] == [{"rule": "includes_lesions", "removed": 0, "added": 6}]


def test_neighbours_are_within_reach_whatever_the_spacing() -> None:
    affine = np.diag([12.0, 12.0, 12.0, 1.0])
    bits = bits_of(liver=[box((0, 3), (0, 2), (0, 2))], liver_tumor=[box((3, 5), (2, 3), (1, 2))])
    assert np.array_equal(mask_of(clean(bits, affine=affine).bits, "liver_tumor"), mask(box((3, 4), (2, 3), (1, 2))))


def test_a_tumour_beside_its_organ_across_a_gap_is_kept_and_cleaning_again_keeps_it() -> None:
    bits = bits_of(liver=[box((0, 3), (0, 3), (0, 3))], liver_tumor=[box((4, 6), (0, 2), (0, 2))])
    once = cleaned(bits)
    assert voxels(once.bits, "liver_tumor") == voxels(bits, "liver_tumor") == 8
    assert voxels(once.bits, "liver") == 27 + 8
    twice = cleaned(once.bits)
    assert np.array_equal(twice.bits, once.bits)
    assert twice.record == {}


def test_an_organ_predicted_nowhere_but_in_a_far_lesion_does_not_save_it() -> None:
    far = box((10, 12), (5, 7), (3, 5))
    bits = bits_of(liver=[box((0, 3), (0, 3), (0, 3)), far], liver_tumor=[far])
    result = cleaned(bits)
    assert voxels(result.bits, "liver_tumor") == 0
    assert voxels(result.bits, "liver") == 27


def test_a_part_made_of_nothing_but_a_larger_lesion_is_not_taken_for_the_organ() -> None:
    organ, lesion = box((0, 2), (0, 2), (0, 2)), box((8, 12), (3, 7), (1, 5))
    result = cleaned(bits_of(liver=[organ, lesion], liver_tumor=[lesion]))
    assert np.array_equal(mask_of(result.bits, "liver"), mask(organ))
    assert voxels(result.bits, "liver_tumor") == 0


def test_a_kidney_tumour_joins_the_nearer_kidney_only() -> None:
    bits = bits_of(
        right_kidney=[box((9, 12), (0, 3), (0, 3))],
        left_kidney=[box((0, 3), (0, 3), (0, 3))],
        kidney_tumor=[box((3, 5), (0, 2), (0, 2))],
    )
    assert cleaned(bits).added == {"left_kidney": 8}


def test_a_lesion_without_its_organ_goes_unless_nobody_asked_for_the_organ() -> None:
    bits = bits_of(liver_tumor=[box((0, 2), (0, 2), (0, 2))], lung_tumor=[box((0, 2), (4, 6), (0, 2))])
    assert voxels(cleaned(bits).bits, "liver_tumor") == 0
    assert voxels(cleaned(bits, ["liver_tumor"]).bits, "liver_tumor") == 8
    # one lung was asked for, the tumour may lie in the other
    assert voxels(cleaned(bits, ["lung_tumor", "right_lung"]).bits, "lung_tumor") == 8
    assert voxels(cleaned(bits, ["lung_tumor", "right_lung", "left_lung"]).bits, "lung_tumor") == 0


def test_cavities_are_filled_but_not_those_open_to_the_border_or_taken_by_others() -> None:
    shell = mask(box((1, 6), (1, 6), (0, 5)))
    hollow = mask(box((2, 5), (2, 5), (1, 4)))
    bits = bits_of()
    set_channel(bits, 5, shell & ~hollow)  # liver
    set_channel(bits, 3, mask(box((3, 4), (3, 4), (2, 3))))  # gall bladder, in the cavity
    result = cleaned(bits)
    assert result.record == {"liver": [{"rule": "holes", "removed": 0, "added": 26}]}
    open_below = bits_of()
    set_channel(open_below, 5, shell & ~mask(box((3, 4), (3, 4), (0, 3))))
    assert cleaned(open_below).record == {}


def test_the_cavity_around_a_tumour_belongs_to_the_organ() -> None:
    bits = bits_of(liver_tumor=[box((3, 5), (3, 4), (2, 3))])
    set_channel(bits, 5, mask(box((1, 7), (1, 6), (0, 5))) & ~mask(box((2, 6), (2, 5), (1, 4))))
    result = cleaned(bits)
    assert voxels(result.bits, "liver") == 6 * 5 * 5
    assert voxels(result.bits, "liver_tumor") == 2


def test_rules_are_switched_for_all_classes_or_for_one() -> None:
    bits = bits_of(
        liver=[box((0, 3), (0, 3), (0, 3)), box((9, 11))], spleen=[box((0, 2), (4, 7)), box((9, 10), (6, 7))]
    )
    assert cleaned(bits, rules="all").removed == {"liver": 2, "spleen": 1}
    assert cleaned(bits, rules="-largest_component:spleen").removed == {"liver": 2}
    assert cleaned(bits, rules="-largest_component").record == {}
    assert cleaned(bits, rules="none").record == {}
    assert cleaned(bits, rules="largest_component").removed == {"liver": 2, "spleen": 1}
    lesion = bits_of(
        liver=[box((0, 3), (0, 3), (0, 3))], liver_tumor=[box((4, 6), (0, 2), (0, 2)), box((10, 12), (5, 7), (0, 2))]
    )
    assert cleaned(lesion, rules="-inside_organ").removed == {}
    assert cleaned(lesion, rules="-includes_lesions").added == {}
    assert cleaned(lesion, rules="-includes_lesions:liver").added == {}


def test_bits_of_other_classes_are_not_touched_and_fill_nothing() -> None:
    bits = np.zeros((2, *SHAPE), dtype=np.uint32)
    bits[:1] = bits_of(liver=[box((0, 3), (0, 3), (0, 3)), box((9, 10))], spleen=[box((5, 6)), box((9, 10))])
    set_channel(bits, 40, mask(box((0, 1)), box((11, 12))))
    result = clean(bits, ["liver"], affine=AFFINE)
    assert voxels(result.bits, "spleen") == 2
    assert int(get_channel(result.bits, 40).sum()) == 2
    assert result.removed == {"liver": 1}


def test_the_digest_changes_with_switches_and_with_what_the_table_declares() -> None:
    table = all_classes()
    narrow = [row if row.name != "liver_tumor" else row.__class__(**{**vars(row), "margin_mm": 2.0}) for row in table]
    digests = {
        rules_digest(),
        rules_digest(rule_switches("-holes")),
        rules_digest(rule_switches("-holes:liver")),
        rules_digest(table=narrow),
        rules_digest(classes=["liver", "spleen"]),
    }
    assert len(digests) == 5
    assert rules_digest(rule_switches("all")) == rules_digest()
    # what a model does not predict names none of its masks
    assert rules_digest(classes=["liver"], table=narrow) == rules_digest(classes=["liver"])


def test_the_middle_is_needed_for_pairs_only_and_must_fit() -> None:
    assert needs_middle(["right_lung", "left_lung"])
    assert not needs_middle(["right_lung", "liver"])
    assert not needs_middle(["right_lung", "left_lung"], rule_switches("-sides"))
    with pytest.raises(ValueError, match=r"midline of shape \(3,\) for bits of shape \(1, 12, 7, 5\)"):
        clean(bits_of(), affine=AFFINE, midline_x=np.zeros(3))
    with pytest.raises(ValueError, match="point LAS: RAS is needed"):
        clean(bits_of(), affine=AFFINE * [[-1], [1], [1], [1]], midline_x=np.zeros(5))


def test_masks_that_are_nearly_noise_are_cleaned_family_by_family_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    bits = random.integers(0, 2**32, (1, *SHAPE), dtype=np.uint32) & random.integers(
        0, 2**32, (1, *SHAPE), dtype=np.uint32
    )
    together = cleaned(bits)
    assert not any("ragged" in remark for remark in together.remarks)
    monkeypatch.setattr("models.postprocess.MOST_REGIONS", 50)
    apart = cleaned(bits)
    assert "at most 50 were allowed" in apart.remarks[0]
    for row in all_classes():
        if row.components is not None and not any(row.name in other.parents for other in all_classes()):
            assert count_components(get_channel(apart.bits, row.channel)) <= row.components
    again = cleaned(apart.bits)
    assert np.array_equal(again.bits, apart.bits)
    assert again.record == {}


def test_families_are_what_rules_relate() -> None:
    names = [sorted(row.name for row in family) for family in _families(all_classes())]
    assert ["kidney_cyst", "kidney_tumor", "left_kidney", "right_kidney"] in names
    assert ["hepatic_vessel", "liver", "liver_tumor"] in names
    assert ["spleen"] in names
    assert sum(map(len, names)) == 32
