"""Which cleaning rules a text switches on, and what the class table declares for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from datasets_registry.class_rules import RULES, RuleSwitches, rule_switches
from datasets_registry.taxonomy import all_classes, class_info
from tasks.settings import Settings


@pytest.mark.parametrize(
    ("text", "on", "written"),
    [
        ("all", RULES, "all"),
        ("none", (), "none"),
        ("holes, sides", ("sides", "holes"), "sides,holes"),
        ("-holes", tuple(rule for rule in RULES if rule != "holes"), None),
        ("all,-holes,-sides,-min_size", ("largest_component", "inside_organ", "includes_lesions"), None),
        ("none,holes", ("holes",), "holes"),
    ],
)
def test_rules_are_named_or_taken_away(text: str, on: tuple[str, ...], written: str | None) -> None:
    switches = rule_switches(text)
    assert switches.on == on
    assert written is None or switches.text() == written
    assert rule_switches(switches.text()) == switches


def test_a_rule_is_taken_away_for_one_class() -> None:
    switches = rule_switches("-largest_component:liver")
    assert not switches.applies("largest_component", "liver")
    assert switches.applies("largest_component", "spleen")
    assert switches.applies("holes", "liver")
    assert switches.text() == "all,-largest_component:liver"
    # a rule that nobody uses need not be taken away
    assert rule_switches("holes,-sides:right_lung") == RuleSwitches(("holes",))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("hole", ValueError, "'hole' is no rule.*nearest: holes"),
        ("", ValueError, "expected all, none"),
        ("holes:liver", ValueError, "'holes:liver' is no rule.*-RULE:CLASS"),
        ("-holes:livr", KeyError, "nearest: liver"),
    ],
)
def test_unknown_rules_and_classes_name_the_nearest(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rule_switches(text)


def test_the_setting_is_checked_and_written_in_one_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTFACTORY_CLEANING", "holes , sides")
    assert Settings().cleaning == "sides,holes"
    monkeypatch.setenv("CTFACTORY_CLEANING", "-holes:livr")
    with pytest.raises(ValidationError, match=r"unknown class 'livr'; nearest: liver"):
        Settings()


def test_lesions_declare_margin_and_least_volume_and_only_unpaired_organs_where_they_lie() -> None:
    for info in all_classes():
        assert (info.margin_mm > 0 and info.min_ml > 0) or not info.is_lesion
        assert info.lies is None or (info.side is None and info.kind == "organ")
    assert {info.name: info.lies for info in all_classes() if info.lies} == {
        "spleen": "left",
        "stomach": "left",
        "liver": "right",
        "gall_bladder": "right",
    }
    assert class_info("hepatic_vessel").margin_mm == 3


def test_own_classes_take_the_rules_of_their_kind_or_say_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(
        "classes:\n"
        "  - {index: 33, name: spleen_cyst, kind: cyst, parents: [spleen]}\n"
        "  - {index: 34, name: mass, kind: tumour, parents: [spleen], margin_mm: 0, min_ml: 2, holes: false}\n"
    )
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(tmp_path / "own.yaml"))
    cyst, mass = class_info("spleen_cyst"), class_info("mass")
    assert (cyst.margin_mm, cyst.min_ml, cyst.holes) == (5, 0.05, True)
    assert (mass.margin_mm, mass.min_ml, mass.holes) == (0, 2, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{index: 33, name: mass, kind: tumour, margin_mm: -1}", "mass: margin_mm: "),
        ("{index: 33, name: mass, kind: tumour, parents: [mass]}", "round in a circle: mass in mass"),
        (
            "{index: 33, name: one, kind: organ, parents: [two]}, {index: 34, name: two, kind: organ, parents: [one]}",
            "parents go round in a circle",
        ),
    ],
)
def test_margins_below_0_and_parents_in_a_circle_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "own.yaml").write_text(f"classes: [{text}]")
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(tmp_path / "own.yaml"))
    with pytest.raises(ValueError, match=message):
        all_classes()
