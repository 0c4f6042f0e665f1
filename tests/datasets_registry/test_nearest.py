"""Names that may have been meant."""

from __future__ import annotations

from datasets_registry.nearest import nearest_names, nearest_text

KNOWN = ("Liver", "liver_tumor", "spleen", "aorta")


def test_the_likest_comes_first_and_keeps_its_spelling():
    assert nearest_names("LIVVER", KNOWN, most=2) == ["Liver", "liver_tumor"]
    assert nearest_names("LIVVER", KNOWN, most=1) == ["Liver"]


def test_nothing_alike_is_said():
    assert nearest_text("zzz", KNOWN) == "nearest: none"
    assert nearest_text("aorrta", KNOWN) == "nearest: aorta"
