"""Structures found by name, and masks put together into one label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datasets_registry.cards import Card, load_card
from datasets_registry.layouts.structures import match_structures, merge_masks
from imaging.errors import BadInput


def card_of(labels: dict[int, Any], rule: str = "present") -> Card:
    fields = load_card("ircadb_01").model_dump()
    reached = {name for value in labels.values() for name in (*value.get("classes", ()), *value.get("split", ()))}
    cleared = {"labels": labels, "annotated_classes": sorted(reached), "annotation_rule": rule, "always_annotated": []}
    return Card.model_validate({**fields, **cleared, "case_flags": [], "label_quality": []})


CARD = card_of(
    {
        1: {"name": "liver", "classes": ["liver"], "aliases": ["foie"]},
        2: {"name": "rightkidney", "classes": ["right_kidney"]},
        3: {"name": "skin"},
        4: {"name": "livertumor", "classes": ["liver_tumor", "liver"], "aliases": ["livertumor*", "lesion[0-9]"]},
        5: {"name": "spleen", "classes": ["spleen"]},
    }
)


def test_names_aliases_and_patterns_in_any_case_and_spelling() -> None:
    names = ["FOIE", "Right Kidney", "right_kidney", "Liver.Tumor-2", "lesion7", "Mustermann", "livers"]
    found, unmatched = match_structures(names, CARD)
    assert found == {1: ["FOIE"], 2: ["Right Kidney", "right_kidney"], 4: ["Liver.Tumor-2", "lesion7"]}
    assert unmatched == ["Mustermann", "livers"]


def test_exact_name_goes_before_a_pattern_and_two_patterns_are_refused() -> None:
    card = card_of(
        {
            1: {"name": "liver", "classes": ["liver"], "aliases": ["liver*"]},
            2: {"name": "livervessel", "classes": ["hepatic_vessel"], "aliases": ["*vessel*"]},
        }
    )
    assert match_structures(["livervessel"], card)[0] == {2: ["livervessel"]}
    with pytest.raises(BadInput, match="fits liver, livervessel") as caught:
        match_structures(["liver vessel Mustermann"], card)
    assert "Mustermann" not in str(caught.value)


def test_masks_are_drawn_by_value_and_say_what_was_there(body: Any) -> None:
    liver = body.label.with_array(body.label.array == 1)
    tumour = body.label.with_array(np.zeros(body.label.shape, dtype=bool))
    tumour.array[12, 6, 4] = True
    raw = merge_masks(body.image, [(1, liver), (3, liver), (4, tumour), (5, tumour.with_array(~tumour.array & False))],
                      CARD, "x/1")  # fmt: skip
    assert raw.label is not None
    assert raw.present_values == frozenset({1, 3, 4, 5})  # the spleen was drawn, empty: it is known to be absent
    assert np.unique(raw.label.array).tolist() == [0, 1, 4]
    assert np.argwhere(raw.label.array == 4).tolist() == [[12, 6, 4]]
    assert raw.notes == ()  # a tumour in its organ is no overlap
    assert CARD.annotated_in("1", raw.present_values) == ("spleen", "liver", "liver_tumor")


def test_overlap_of_two_organs_is_counted(body: Any) -> None:
    liver = body.label.with_array(body.label.array == 1)
    spleen = body.label.with_array(np.zeros(body.label.shape, dtype=bool))
    spleen.array[11:13, 5, 3] = True
    raw = merge_masks(body.image, [(1, liver), (5, spleen)], CARD, "x/1")
    assert raw.notes == ("x/1: 2 voxels lie in two structures, the higher value was kept",)


def test_masks_of_one_value_are_united_and_keep_their_steps(body: Any) -> None:
    parts = [body.label.with_array(body.label.array * 0) for _ in range(2)]
    parts[0].array[11, 5, 3], parts[1].array[12, 5, 3] = 1, 7
    raw = merge_masks(body.image, [(4, parts[0]), (4, parts[1].with_step("round_grid"))], CARD, "x/1")
    assert raw.label is not None
    assert np.argwhere(raw.label.array == 4).tolist() == [[11, 5, 3], [12, 5, 3]]
    assert raw.label.steps[0].as_json() == '{"step": "round_grid", "structure": 4}'
    with pytest.raises(ValueError, match="ascending"):
        merge_masks(body.image, [(4, parts[0]), (1, parts[1])], CARD, "x/1")


def test_a_base_label_lies_under_the_masks(body: Any) -> None:
    base = body.label.with_array((body.label.array == 1).astype(np.uint8))
    tumour = body.label.with_array(np.zeros(body.label.shape, dtype=bool))
    tumour.array[12, 6, 4] = True
    raw = merge_masks(body.image, [(4, tumour)], CARD, "x/1", base=base)
    assert raw.label is not None
    assert raw.present_values == frozenset({1, 4})
    assert (raw.label.array == 1).sum() == (body.label.array == 1).sum() - 1
