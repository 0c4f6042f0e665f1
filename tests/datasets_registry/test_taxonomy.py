"""The class table: order, partners, parents, and what a wrong name says."""

from __future__ import annotations

import pytest

from datasets_registry.taxonomy import all_classes, channels, class_info, class_names


def test_classes_are_the_32_of_the_published_model_in_its_order() -> None:
    names = class_names()
    assert len(names) == 32
    assert names[:6] == ("spleen", "right_kidney", "left_kidney", "gall_bladder", "esophagus", "liver")
    assert names[22:24] == ("left_head_of_femur", "right_head_of_femur")  # the only pair numbered left first
    assert names[25:] == (
        "kidney_tumor",
        "liver_tumor",
        "pancreas_tumor",
        "hepatic_vessel_tumor",
        "lung_tumor",
        "colon_tumor",
        "kidney_cyst",
    )


def test_channel_is_index_minus_one() -> None:
    assert class_info("spleen").channel == 0
    assert class_info("kidney_cyst").channel == 31
    assert channels(["liver", "spleen"]) == [5, 0]


def test_mirror_partners_point_at_each_other_and_have_opposite_sides() -> None:
    pairs = [info for info in all_classes() if info.mirror is not None]
    assert len(pairs) == 8
    for info in pairs:
        partner = class_info(str(info.mirror))
        assert partner.mirror == info.name
        assert {info.side, partner.side} == {"right", "left"}
        assert info.name.startswith(str(info.side))


def test_parents_are_organs_and_the_hepatic_vessel_tumour_has_none() -> None:
    for info in all_classes():
        assert all(class_info(parent).kind == "organ" for parent in info.parents)
    assert class_info("hepatic_vessel_tumor").parents == ()
    assert class_info("kidney_cyst").parents == ("right_kidney", "left_kidney")


def test_lesions_are_the_six_tumours_and_the_cyst() -> None:
    assert [info.index for info in all_classes() if info.is_lesion] == [26, 27, 28, 29, 30, 31, 32]


def test_volume_ranges_are_positive_and_ordered() -> None:
    for info in all_classes():
        low, high = info.volume_ml
        assert 0 < low < high


def test_unknown_class_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"nearest: .*right_kidney"):
        class_info("right_kidny")
