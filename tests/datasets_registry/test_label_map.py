"""From native values to class bits: names, sides, containment, mirrored labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_registry.cards import Card, load_card
from datasets_registry.label_map import native_to_bits
from datasets_registry.taxonomy import class_info, class_names
from imaging.bits import count_voxels, get_channel
from imaging.errors import BadInput
from imaging.volume import Volume

SHAPE = (12, 6, 5)
AFFINE = np.array([[3.0, 0, 0, -16.5], [0, 4.0, 0, 10], [0, 0, 5.0, -7], [0, 0, 0, 1]])
EXAMPLE = load_card("totalsegmentator_example")
MIDDLE = np.zeros(SHAPE[2])  # world x = 0 lies between voxels 5 and 6; voxels 6.. are the patient's right


def label_of(**boxes: tuple[int, tuple[slice, slice, slice]]) -> Volume:
    array = np.zeros(SHAPE, dtype=np.uint8)
    for value, box in boxes.values():
        array[box] = value
    return Volume(array, AFFINE)


def box(x: slice, y: slice = slice(1, 4), z: slice = slice(1, 4)) -> tuple[slice, slice, slice]:
    return (x, y, z)


def mask_of(bits: Any, name: str) -> Any:
    return get_channel(bits, class_info(name).channel)


def voxels_of(bits: Any) -> dict[str, int]:
    counts = count_voxels(bits, len(class_names()))
    return {name: int(count) for name, count in zip(class_names(), counts, strict=True) if count}


def test_values_map_by_name_and_a_tumour_is_also_its_organ() -> None:
    label = label_of(organ=(1, box(slice(2, 6))), tumour=(2, box(slice(2, 3))))
    result = native_to_bits(label, load_card("msd_pancreas"), None)
    assert voxels_of(result.bits) == {"pancreas": 36, "pancreas_tumor": 9}
    assert result.annotated == ("pancreas", "pancreas_tumor")
    assert result.split_status == {}
    assert result.bits.dtype == np.uint32
    assert result.bits.shape == (1, *SHAPE)


def test_kidney_tumour_and_cyst_are_split_together() -> None:
    label = label_of(
        right=(1, box(slice(8, 11))),
        left=(1, box(slice(1, 4))),
        tumour=(2, box(slice(3, 5))),
        cyst=(3, box(slice(8, 9))),
    )
    result = native_to_bits(label, load_card("kits"), None, midline_x=MIDDLE)
    assert voxels_of(result.bits) == {"right_kidney": 27, "left_kidney": 36, "kidney_tumor": 18, "kidney_cyst": 9}
    assert np.argwhere(mask_of(result.bits, "right_kidney"))[:, 0].min() == 8
    assert np.argwhere(mask_of(result.bits, "left_kidney"))[:, 0].max() == 4
    assert result.split_status == {"right_kidney": "two"}


def test_a_horseshoe_is_cut_at_the_midline_and_loses_no_voxel() -> None:
    result = native_to_bits(label_of(both=(1, box(slice(2, 10)))), load_card("kits"), None, midline_x=MIDDLE)
    right, left = mask_of(result.bits, "right_kidney"), mask_of(result.bits, "left_kidney")
    assert result.split_status == {"right_kidney": "cut"}
    assert (int(right.sum()), int(left.sum()), int((right & left).sum())) == (36, 36, 0)


@pytest.mark.parametrize(
    ("x", "status", "name"), [(slice(8, 11), "right_only", "right_kidney"), (slice(1, 4), "left_only", "left_kidney")]
)
def test_a_single_kidney_stays_on_its_side(x: slice, status: str, name: str) -> None:
    result = native_to_bits(label_of(one=(1, box(x))), load_card("kits"), None, midline_x=MIDDLE)
    assert voxels_of(result.bits) == {name: 27}
    assert result.split_status == {"right_kidney": status}
    assert set(result.annotated) == {"right_kidney", "left_kidney", "kidney_tumor", "kidney_cyst"}


def test_an_empty_label_gives_empty_bits_and_keeps_what_was_annotated() -> None:
    result = native_to_bits(label_of(), load_card("kits"), None, midline_x=MIDDLE)
    assert not result.bits.any()
    assert result.split_status == {"right_kidney": "empty"}
    assert len(result.annotated) == 4


def test_two_pairs_of_one_card_are_split_apart() -> None:
    label = label_of(
        lung_r=(3, box(slice(8, 11), z=slice(4, 5))),
        lung_l=(3, box(slice(1, 4), z=slice(4, 5))),
        kidney=(4, box(slice(1, 4), z=slice(0, 2))),
        bone=(5, box(slice(5, 7), z=slice(2, 3))),
    )
    result = native_to_bits(label, load_card("ct_org"), None, midline_x=MIDDLE)
    assert voxels_of(result.bits) == {"left_kidney": 18, "right_lung": 9, "left_lung": 9}
    assert result.split_status == {"right_lung": "two", "right_kidney": "left_only"}


def test_sides_without_image_or_midline_are_refused() -> None:
    with pytest.raises(ValueError, match="give the image or the body's midline"):
        native_to_bits(label_of(one=(1, box(slice(8, 11)))), load_card("kits"), None)


def test_the_midline_comes_from_the_image(body: Any) -> None:
    kidneys = np.zeros_like(body.label.array)
    kidneys[12:15, 5:8, 1:3] = 1
    kidneys[5:8, 5:8, 1:3] = 1
    result = native_to_bits(body.label.with_array(kidneys), load_card("kits"), body.image)
    assert voxels_of(result.bits) == {"right_kidney": 18, "left_kidney": 18}
    assert mask_of(result.bits, "right_kidney")[13, 6, 1]


def test_an_undeclared_value_is_refused() -> None:
    with pytest.raises(BadInput, match=r"msd_pancreas/007.*3"):
        native_to_bits(label_of(odd=(3, box(slice(0, 2)))), load_card("msd_pancreas"), None, where="msd_pancreas/007")


def test_grids_that_differ_are_refused(body: Any) -> None:
    with pytest.raises(ValueError, match=r"\(12, 6, 5\) on an image of shape \(20, 16, 10\)"):
        native_to_bits(label_of(), load_card("msd_pancreas"), body.image)


def sloppy_card() -> Card:
    """Return a card whose lesion values do not name their organs; containment must add them."""
    fields = load_card("kits").model_dump()
    labels = {
        1: {"name": "right", "classes": ["right_kidney"]},
        2: {"name": "left", "classes": ["left_kidney"]},
        3: {"name": "kidney cyst", "classes": ["kidney_cyst"]},
        4: {"name": "liver", "classes": ["liver"]},
        5: {"name": "liver tumour", "classes": ["liver_tumor"]},
    }
    annotated = ("right_kidney", "left_kidney", "kidney_cyst", "liver", "liver_tumor")
    return Card(**{**fields, "labels": labels, "annotated_classes": annotated, "label_variants": {}, "confidence": {}})


def test_containment_adds_the_single_parent_and_the_side_of_a_pair() -> None:
    label = label_of(
        right=(1, box(slice(8, 10), z=slice(0, 1))),
        left=(2, box(slice(2, 4), z=slice(0, 1))),
        cyst=(3, box(slice(1, 2), z=slice(0, 1))),
        liver=(4, box(slice(7, 10), z=slice(3, 4))),
        tumour=(5, box(slice(10, 11), z=slice(3, 4))),
    )
    result = native_to_bits(label, sloppy_card(), None, midline_x=MIDDLE)
    assert voxels_of(result.bits) == {
        "right_kidney": 6,
        "left_kidney": 9,
        "kidney_cyst": 3,
        "liver": 12,
        "liver_tumor": 3,
    }


def test_swapped_kidneys_are_refused_with_both_centroids() -> None:
    label = label_of(right=(1, box(slice(1, 4))), left=(2, box(slice(8, 11))))
    with pytest.raises(
        BadInput, match=r"right_kidney at x = -10 mm, left_kidney at x = 10 mm.*expected right > left"
    ) as caught:
        native_to_bits(label, sloppy_card(), None, midline_x=MIDDLE)
    assert caught.value.code == "mirrored"


def test_a_liver_on_the_left_is_refused_where_no_pair_says_otherwise() -> None:
    card = load_card("lits")
    image = Volume(np.full(SHAPE, 40, dtype=np.int16), AFFINE)
    with pytest.raises(BadInput, match=r"liver at x = -\d+ mm"):
        native_to_bits(label_of(liver=(1, box(slice(0, 3)))), card, image, midline_x=MIDDLE)
    native_to_bits(label_of(liver=(1, box(slice(3, 8)))), card, image, midline_x=MIDDLE)


def test_kidneys_in_place_overrule_a_liver_beyond_the_middle() -> None:
    label = label_of(
        right=(1, box(slice(8, 11))), left=(2, box(slice(4, 6))), liver=(4, box(slice(0, 3), z=slice(4, 5)))
    )
    assert voxels_of(native_to_bits(label, sloppy_card(), None, midline_x=MIDDLE).bits)["liver"] == 9


@given(st.lists(st.integers(0, 117), min_size=8, max_size=8))
def test_every_voxel_gets_exactly_the_classes_of_its_value(values: list[int]) -> None:
    card = EXAMPLE
    # one voxel a value on a line along z: partners share their x, so none can look swapped
    array = np.array(values, dtype=np.uint8).reshape(1, 1, 8)
    bits = native_to_bits(Volume(array, AFFINE), card, None).bits
    for z, value in enumerate(values):
        expected = set(card.labels[value].classes) if value else set()
        assert {name for name in class_names() if mask_of(bits, name)[0, 0, z]} == expected


def test_a_tumour_sets_no_organ_that_nobody_annotated_in_the_case() -> None:
    label = label_of(organ=(1, box(slice(2, 6))), tumour=(2, box(slice(2, 3))))
    result = native_to_bits(label, load_card("msd_pancreas"), None, annotated=("pancreas_tumor",))
    assert voxels_of(result.bits) == {"pancreas_tumor": 9}
    assert result.annotated == ("pancreas_tumor",)


def test_the_annotated_classes_come_back_in_channel_order() -> None:
    result = native_to_bits(label_of(), load_card("lits"), None, annotated=("liver_tumor", "liver"))
    assert result.annotated == ("liver", "liver_tumor")


def test_of_a_pair_only_the_annotated_side_is_set() -> None:
    label = label_of(right=(1, box(slice(8, 11))), left=(1, box(slice(1, 4))))
    card = load_card("kits")
    result = native_to_bits(label, card, None, midline_x=MIDDLE, annotated=("left_kidney",))
    assert voxels_of(result.bits) == {"left_kidney": 27}
    assert result.split_status == {"right_kidney": "two"}
    nothing = native_to_bits(label, card, None, midline_x=MIDDLE, annotated=("kidney_tumor",))
    assert (voxels_of(nothing.bits), nothing.split_status) == ({}, {})


def test_a_lesion_of_the_other_kidney_does_not_become_the_annotated_one() -> None:
    label = label_of(left=(2, box(slice(2, 4), z=slice(0, 1))), cyst=(3, box(slice(8, 9), z=slice(0, 1))))
    annotated = ("left_kidney", "kidney_cyst")
    result = native_to_bits(label, sloppy_card(), None, midline_x=MIDDLE, annotated=annotated)
    assert voxels_of(result.bits) == {"left_kidney": 6, "kidney_cyst": 3}


def test_a_class_that_the_card_does_not_annotate_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match=r"x/1: \['spleen'\] given as annotated, but card lits annotates"):
        native_to_bits(label_of(), load_card("lits"), None, annotated=("spleen",), where="x/1")


def test_an_organ_that_touches_an_unassigned_tumour_is_not_known_in_that_case() -> None:
    flare = load_card("flare23_pool")
    label = label_of(
        liver=(1, box(slice(8, 11))),
        spleen=(3, box(slice(1, 3))),
        tumour=(14, box(slice(7, 8), slice(4, 5), slice(4, 5))),  # shares a corner with the liver
    )
    result = native_to_bits(label, flare, None, midline_x=MIDDLE, annotated=("spleen", "liver"))
    assert result.annotated == ("spleen",)
    assert voxels_of(result.bits) == {"spleen": 18}
    alone = label_of(spleen=(3, box(slice(1, 3))), tumour=(14, box(slice(4, 5))))
    assert native_to_bits(alone, flare, None, midline_x=MIDDLE, annotated=("spleen",)).annotated == ("spleen",)
