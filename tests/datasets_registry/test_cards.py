"""What a card refuses, how variants replace labels, what changes its digest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets_registry.cards import Card, list_cards, load_card


def card_fields(**changes: Any) -> dict[str, Any]:
    """Return a smallest valid card, as YAML gives it."""
    fields: dict[str, Any] = {
        "id": "tiny",
        "title": "Tiny",
        "role": "train",
        "access": "open",
        "licence": {"spdx": None, "non_commercial": None},
        "citation": {"short": None, "doi": None},
        "landing_page": None,
        "layout": {
            "reader": "nifti_pairs",
            "tree": "img/imgN.nii.gz",
            "image_glob": "img/*.nii.gz",
            "label_glob": "label/*.nii.gz",
            "case_id_regex": r"img(\d+)",
            "label_id_regex": r"label(\d+)",
        },
        "labels": {1: {"name": "liver", "classes": ["liver"]}, 2: {"name": "bone"}},
        "annotated_classes": ["liver"],
        "label_origin": "human",
    }
    return {**fields, **changes}


def written(folder: Path, **changes: Any) -> Path:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(card_fields(**changes)))
    return folder


def test_a_valid_card_loads_and_is_listed(tmp_path: Path) -> None:
    written(tmp_path)
    assert list_cards(tmp_path) == ["tiny"]
    card = load_card("tiny", tmp_path)
    assert card.labels[2].classes == ()
    assert card.licence.spdx is None


def test_unknown_card_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="nearest: kits"):
        load_card("kits23")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": {1: {"name": "liver", "classes": ["livr"]}}},
            r"card tiny: labels\.1: unknown class 'livr'; nearest: liver",
        ),
        ({"annotated_classes": ["liver", "spleen"]}, r"only in annotated_classes \['spleen'\]"),
        ({"annotated_classes": []}, r"only in labels \['liver'\]"),
        ({"annotated_classes": ["liver", "liver"]}, "named twice"),
        ({"labels": {0: {"name": "liver", "classes": ["liver"]}}}, "value 0 is background"),
        ({"tumour_free": ["liver"]}, "no tumour or cyst"),
        ({"tumour_free": ["no_tumour"]}, "unknown class 'no_tumour'"),
        ({"role": "test"}, r"card tiny: role: .*found 'test'"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"label_origin": None}, "label_origin is human or model"),
        ({"label_origin": "model"}, "does not fit label_model None"),
        ({"id": "other"}, "field id is 'other', expected the file's name 'tiny'"),
        ({"confidence": {"colour": {"level": "seen", "text": "x"}}}, "'colour', which is no field"),
        ({"unlabelled_case_ids": ["0009-0001"]}, "range '0009-0001' runs backwards"),
        ({"sources": [{"name": "a.zip", "md5": "123"}]}, r"sources\.0\.md5"),
    ],
)
def test_a_wrong_card_names_card_field_and_value(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    written(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_card("tiny", tmp_path)


@pytest.mark.parametrize("pair", [["left_kidney", "right_kidney"], ["right_kidney", "left_lung"], ["liver", "spleen"]])
def test_split_needs_partners_right_first(tmp_path: Path, pair: list[str]) -> None:
    written(tmp_path, labels={1: {"name": "both", "split": pair}}, annotated_classes=pair)
    with pytest.raises(ValueError, match="not a pair in the order right, left"):
        load_card("tiny", tmp_path)


@pytest.mark.parametrize("regex", [r"img\d+", r"(img)(\d+)"])
def test_id_regex_needs_exactly_one_group(tmp_path: Path, regex: str) -> None:
    written(tmp_path, layout={**card_fields()["layout"], "case_id_regex": regex})
    with pytest.raises(ValueError, match=re.escape("needs exactly one group")):
        load_card("tiny", tmp_path)


def test_id_ranges_are_written_out_with_their_width() -> None:
    card = Card(**card_fields(unlabelled_case_ids=["0098-0101", "7", "x-1"]))
    assert card.unlabelled_case_ids == ("0098", "0099", "0100", "0101", "7", "x-1")


def test_split_pairs_follow_the_values_and_occur_once() -> None:
    assert load_card("ct_org").split_pairs == (("right_lung", "left_lung"), ("right_kidney", "left_kidney"))
    assert load_card("kits").split_pairs == (("right_kidney", "left_kidney"),)


def test_variant_replaces_labels_glob_and_annotated_classes() -> None:
    card = load_card("pancreas_ct").with_variant("official")
    assert card.annotated_classes == ("pancreas",)
    assert card.layout.label_glob == "TCIA_pancreas_labels-02-05-2017/label*.nii.gz"
    assert card.unlabelled_case_ids == ()
    assert card.tumour_free == ("pancreas_tumor",)


def test_default_variant_is_the_card_itself_and_an_unknown_one_lists_the_known() -> None:
    card = load_card("btcv")
    assert card.with_variant("official") is card
    with pytest.raises(KeyError, match="known: official, gibson_train_1_40, gibson_test_61_80"):
        card.with_variant("gibson")


def test_digest_ignores_wording_and_sees_what_decides_a_result() -> None:
    card = Card(**card_fields())
    reworded = Card(**card_fields(title="Other words", quirks=[{"fact": "x", "confidence": "seen"}]))
    assert reworded.digest() == card.digest()
    changed = [
        card_fields(labels={1: {"name": "liver", "classes": ["liver"]}}),
        card_fields(role="external"),
        card_fields(tumour_free=["liver_tumor"]),
        card_fields(licence={"spdx": "MIT", "non_commercial": None}),
        card_fields(unlabelled_case_ids=["1"]),
    ]
    digests = {Card(**fields).digest() for fields in changed} | {card.digest()}
    assert len(digests) == len(changed) + 1


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    fields = card_fields()
    fields["labels"] = dict(reversed(fields["labels"].items()))
    assert Card(**fields).digest() == Card(**card_fields()).digest()
