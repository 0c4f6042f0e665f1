"""What a card refuses, how variants replace labels, what changes its digest."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datasets_registry.card_ids import compact_ids, expand_ids
from datasets_registry.cards import CARDS, Card, card_folders, list_cards, load_card


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
        (
            {"sources": [{"kind": "https", "name": "a.zip", "url": "https://x/a.zip", "md5": "123"}]},
            r"card tiny: sources\.0\.https\.md5: .*found '123'",
        ),
        ({"case_ids": ["1-3", "2"]}, r"case_ids: ids listed twice: \['2'\]"),
        ({"case_ids": ["1-3"], "unlabelled_case_ids": ["4"]}, r"unlabelled_case_ids speaks of \['4'\]"),
        ({"case_ids": ["1-3"], "official_splits": {"val": ["9"]}}, r"official_splits\.val speaks of \['9'\]"),
        ({"always_annotated": ["liver"]}, "always_annotated is for annotation_rule present"),
        ({"annotation_rule": "present", "always_annotated": ["spleen"]}, r"always_annotated names \['spleen'\]"),
        (
            {"annotated_by_case": [{"case_ids": ["1-9"], "annotated_classes": ["spleen"], "confidence": "seen"}]},
            r"annotated_by_case of 1 \.\.\. names \['spleen'\]",
        ),
        (
            {
                "overlaps": [
                    {"dataset": "x", "relation": "", "confidence": "seen", "case_ids": ["1-3"], "other_case_ids": ["1"]}
                ]
            },
            "3 case_ids against 1 other_case_ids",
        ),
        ({"tumour_present": {"liver": "all"}}, "no tumour or cyst"),
        (
            {"sources": [{"kind": "manual", "name": "a.zip", "variants": ["oficial"]}]},
            r"source a\.zip is for variants \['oficial'\], but the card has \['official'\]",
        ),
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
    names = {source.name for source in card.sources}
    assert "TCIA_pancreas_labels-02-05-2017.zip" in names
    assert "label_tciapancreasct_multiorgan.tar.gz" not in names


def test_default_variant_is_the_card_itself_and_an_unknown_one_lists_the_known() -> None:
    card = load_card("btcv")
    assert card.with_variant("official") is card
    with pytest.raises(KeyError, match="card btcv: no label variant 'gibson_test_61_80'; known: official, gibson"):
        card.with_variant("gibson_test_61_80")
    with pytest.raises(KeyError, match="known: official, gibson"):
        load_card("btcv", variant="gibbon")


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
        card_fields(annotation_rule="present"),
        card_fields(annotated_by_case=[{"case_ids": ["1"], "annotated_classes": [], "confidence": "seen"}]),
        card_fields(unreliable_spacing=[{"case_ids": ["1"], "reason": "lost", "confidence": "seen"}]),
        card_fields(case_flags=[{"code": "odd", "reason": "x", "case_ids": ["1"], "confidence": "seen"}]),
    ]
    digests = {Card(**fields).digest() for fields in changed} | {card.digest()}
    assert len(digests) == len(changed) + 1


def test_a_reworded_flag_or_a_field_at_its_default_changes_no_digest() -> None:
    flag = {"code": "odd", "reason": "x", "case_ids": ["1"], "confidence": "seen"}
    flagged = Card(**card_fields(case_flags=[flag]))
    assert Card(**card_fields(case_flags=[{**flag, "reason": "y"}])).digest() == flagged.digest()
    plain = Card(**card_fields())
    assert Card(**card_fields(annotation_rule="declared", case_flags=[], guard=None)).digest() == plain.digest()


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    fields = card_fields()
    fields["labels"] = dict(reversed(fields["labels"].items()))
    assert Card(**fields).digest() == Card(**card_fields()).digest()


def own_folder(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setenv("CTFACTORY_CARDS", os.pathsep.join(map(str, folders)))


def test_a_users_card_stands_beside_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_folder(monkeypatch, written(tmp_path))
    assert card_folders() == (CARDS, tmp_path)
    assert {"tiny", "lits"} <= set(list_cards())
    assert (load_card("tiny").title, load_card("lits").id) == ("Tiny", "lits")
    monkeypatch.delenv("CTFACTORY_CARDS")
    assert "tiny" not in list_cards()


def test_an_id_of_the_package_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lits.yaml").write_text(yaml.safe_dump(card_fields(id="lits")))
    own_folder(monkeypatch, tmp_path)
    with pytest.raises(
        ValueError, match=r"card lits: declared by .*cards/lits\.yaml and by .*lits\.yaml; .*rename"
    ) as caught:
        load_card("kits")
    assert str(CARDS) in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_two_folders_of_cards_and_one_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "small.yaml").write_text(yaml.safe_dump(card_fields(id="small")))
    own_folder(monkeypatch, written(tmp_path), other)
    assert {"tiny", "small"} <= set(list_cards())
    own_folder(monkeypatch, tmp_path / "typo")
    with pytest.raises(FileNotFoundError, match=r"CTFACTORY_CARDS: .*typo is no folder"):
        list_cards()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id: tiny\nlabels:\n  1: {name: a}\n  1: {name: b}\n",
            r"card tiny: not readable as YAML: key 1 is given twice.*line 4",
        ),
        ("id: tiny\nlabels: {1: [}\n", "card tiny: not readable as YAML"),
        ("- a\n", "card tiny: found list, expected a mapping"),
    ],
)
def test_a_file_that_is_no_card_says_where(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tiny.yaml").write_text(text)
    with pytest.raises(ValueError, match="(?s)" + message):
        load_card("tiny", tmp_path)


def test_an_edited_card_is_read_again(tmp_path: Path) -> None:
    assert load_card("tiny", written(tmp_path)).title == "Tiny"
    written(tmp_path, title="Tinier")
    os.utime(tmp_path / "tiny.yaml", (1, 1))
    assert load_card("tiny", tmp_path).title == "Tinier"


@pytest.mark.parametrize(
    ("ids", "compact"),
    [
        (["0001", "0002", "0003"], ["0001-0003"]),
        (["8", "9", "10", "11"], ["8-11"]),
        (["1", "2", "5"], ["1", "2", "5"]),
        (["s0001", "s0002", "s0003"], ["s0001", "s0002", "s0003"]),
        (["009", "010", "011", "11"], ["009-011", "11"]),
        ([], []),
    ],
)
def test_ids_are_written_as_ranges_and_read_back(ids: list[str], compact: list[str]) -> None:
    assert compact_ids(ids) == compact
    assert expand_ids(compact) == ids


@given(st.lists(st.integers(0, 400), unique=True), st.sampled_from([1, 3, 5]))
def test_any_list_of_numbers_survives_the_way_through_json(numbers: list[int], width: int) -> None:
    ids = [str(number).zfill(width) for number in sorted(numbers)]
    assert expand_ids(compact_ids(ids)) == ids


def present_card(**changes: Any) -> Card:
    """Return a card of lobes, two spellings of a kidney, and a tumour value that also sets its organ."""
    labels = {
        1: {"name": "upper", "classes": ["left_lung"]},
        2: {"name": "lower", "classes": ["left_lung"]},
        3: {"name": "both kidneys", "split": ["right_kidney", "left_kidney"], "optional": True},
        4: {"name": "right kidney", "classes": ["right_kidney"], "optional": True},
        5: {"name": "liver", "classes": ["liver"]},
        6: {"name": "liver tumour", "classes": ["liver_tumor", "liver"]},
    }
    annotated = ["right_kidney", "left_kidney", "liver", "left_lung", "liver_tumor"]
    return Card(**card_fields(labels=labels, annotated_classes=annotated, annotation_rule="present", **changes))


@pytest.mark.parametrize(
    ("present", "known"),
    [
        ({1, 2}, ("left_lung",)),
        ({1}, ()),
        ({3}, ("right_kidney", "left_kidney")),
        ({4}, ("right_kidney",)),
        ({5}, ("liver",)),
        ({6}, ("liver_tumor",)),
        ({5, 6}, ("liver", "liver_tumor")),
        (set(), ()),
    ],
)
def test_under_rule_present_a_class_is_known_by_what_names_it_first(present: set[int], known: tuple[str, ...]) -> None:
    assert present_card().annotated_in("1", frozenset(present)) == known


def test_always_annotated_and_case_rules_join_the_rule() -> None:
    card = present_card(always_annotated=["liver", "liver_tumor"])
    assert card.annotated_in("1", frozenset({4})) == ("right_kidney", "liver", "liver_tumor")
    rule = {"case_ids": ["7"], "annotated_classes": ["liver"], "confidence": "seen"}
    assert present_card(annotated_by_case=[rule]).annotated_in("7", frozenset({4, 5})) == ("liver",)


def test_a_class_that_no_value_names_first_could_never_be_known() -> None:
    labels = {1: {"name": "tumour", "classes": ["liver_tumor", "liver"]}}
    fields = card_fields(labels=labels, annotated_classes=["liver", "liver_tumor"], annotation_rule="present")
    with pytest.raises(ValueError, match=r"no value names \['liver'\] first"):
        Card(**fields)
    assert Card(**fields, always_annotated=["liver"]).annotated_in("1", frozenset({1})) == ("liver", "liver_tumor")
