"""Promises that every card of the registry keeps."""

from __future__ import annotations

import re

import pytest
import yaml

from datasets_registry.cards import CARDS, Card, list_cards, load_card
from datasets_registry.layouts import reader_for
from datasets_registry.taxonomy import class_info, class_names

EXPECTED = {"btcv", "kits", "chaos_ct", "msd_pancreas", "pancreas_ct", "local", "totalsegmentator_example"}


def every_card_and_variant() -> list[Card]:
    cards = [load_card(card_id) for card_id in list_cards()]
    return cards + [card.with_variant(name) for card in cards for name in card.label_variants]


def test_the_registry_holds_the_cards_that_miniatures_and_tests_rely_on() -> None:
    assert set(list_cards()) >= EXPECTED


@pytest.mark.parametrize("card", every_card_and_variant(), ids=lambda card: f"{card.id}-{card.label_variant}")
def test_card_keeps_its_promises(card: Card) -> None:
    reader = reader_for(card)
    assert callable(reader.list_cases)
    assert callable(reader.read_case)
    reached = {name for value in card.labels.values() for name in value.reached}
    assert reached == set(card.annotated_classes) <= set(class_names())
    assert all(class_info(name).is_lesion for name in card.tumour_free)
    assert not set(card.tumour_free) & set(card.annotated_classes)
    assert 0 not in card.labels
    assert card.digest() == load_card(card.id).with_variant(card.label_variant).digest()
    assert re.fullmatch(r"[0-9a-f]{64}", card.digest())
    assert not set(card.faults) & set(card.unlabelled_case_ids)
    assert Card.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize("card_id", list_cards())
def test_licence_citation_and_landing_page_are_stated_or_null_on_purpose(card_id: str) -> None:
    raw = yaml.safe_load((CARDS / f"{card_id}.yaml").read_text(encoding="utf-8"))
    assert {"spdx", "non_commercial"} <= set(raw["licence"])
    assert {"short", "doi"} <= set(raw["citation"])
    assert {"landing_page", "tumour_free", "overlaps", "label_origin"} <= set(raw)
    if raw["licence"]["spdx"] is None:
        assert raw["licence"]["note"]
    if raw["labels"]:
        assert {"licence", "citation", "counts", "layout", "labels"} <= {
            field.split(".")[0] for field in raw["confidence"]
        }


def test_digests_tell_all_cards_apart() -> None:
    cards = every_card_and_variant()
    assert len({card.digest() for card in cards}) == len(cards)


def test_a_lesion_value_is_also_its_organ_where_that_organ_is_annotated() -> None:
    for card in every_card_and_variant():
        for value in card.labels.values():
            for name in value.classes:
                parents = set(class_info(name).parents) & set(card.annotated_classes)
                if class_info(name).is_lesion and parents:
                    assert parents & set(value.reached), f"{card.id}: {value.name}"


def test_overlapping_data_sets_name_each_other() -> None:
    known = set(list_cards())
    named = {(card_id, overlap.dataset) for card_id in known for overlap in load_card(card_id).overlaps}
    for one, other in named:
        if other in known:
            assert (other, one) in named, f"{one} names {other}, but not the reverse"


def test_value_order_traps() -> None:
    word, amos, btcv = load_card("word"), load_card("amos22_ct"), load_card("btcv")
    assert word.labels[3].classes == ("left_kidney",)
    assert word.labels[15].classes == ("left_head_of_femur",)
    assert btcv.labels[2].classes == ("right_kidney",)
    assert amos.labels[10].classes == ("pancreas",)
    assert "duodenum" not in btcv.annotated_classes
    assert btcv.with_variant("gibson").annotated_in("0061", None)[-1] == "duodenum"
