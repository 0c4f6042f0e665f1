"""Every class has a code of DICOM's own dictionary, with the meaning that stands there."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from datasets_registry.dicom_codes import Code, class_codes
from datasets_registry.taxonomy import all_classes, class_names


def meanings(code: Code) -> set[str]:
    assert code[2] == "SCT"
    return {
        meaning.lower()
        for values in concepts["SCT"].values()
        for value, (meaning, _) in values.items()
        if value == code[0]
    }


@pytest.mark.parametrize("name", class_names()[:32])
def test_codes_stand_in_the_dictionary_with_their_meaning(name: str) -> None:
    codes = class_codes(name)
    for code in (codes.category, codes.type, codes.modifier, codes.region):
        if code is not None:
            assert code[1].lower() in meanings(code), code


def test_sides_are_modifiers_and_no_two_classes_share_all_codes() -> None:
    for info in all_classes()[:32]:
        modifier = class_codes(info.name).modifier
        assert (None if modifier is None else modifier[1].lower()) == info.side
    told: dict[object, list[str]] = {}
    for name in class_names()[:32]:
        told.setdefault(class_codes(name), []).append(name)
    # the tumour of the hepatic vessels' data set lies in the liver, as a liver tumour does: the label tells them apart
    assert [names for names in told.values() if len(names) > 1] == [["liver_tumor", "hepatic_vessel_tumor"]]
