"""What is decided about a mask, and that the reason is said in words."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from imaging.scan_quality import ScanQuality, scan_quality
from imaging.volume import Volume
from tasks.calibration import Calibration, ClassMap
from tasks.decide import Bars, Decision, bars_of, case_decision, decide
from tasks.label_scores import LabelScores
from tasks.settings import Settings

FALLING = Calibration(
    {"improbable": 0.0, "entropy": 1.0, "disagreement": 0.0, "odd": 0.0, "removed": 0.0},
    dict.fromkeys(("improbable", "entropy", "disagreement", "odd", "removed"), 0.0),
    ((0.0, 1.0), (1.0, 0.0)),
    {"liver": ClassMap(9, 0.0, None, 0, 0), "spleen": ClassMap(9, 0.0, None, 0, 0)},
    {"organ": 0.25, "lesion": 0.75},
)
"""Expects 1 minus the entropy."""
BARS = Bars()


@pytest.fixture(scope="module")
def sound() -> ScanQuality:
    return ScanQuality((9, 9, 9), tuple(np.eye(4).ravel()), plain().hu, 10.0, 0.0, (0.0, 0.0, 0.0, 0.0), 0.0)


def plain() -> ScanQuality:
    random = np.random.default_rng(0)
    return scan_quality(Volume(random.integers(-100, 100, (9, 9, 9)).astype(np.int16), np.eye(4)))


def liver(entropy: float = 0.1, **more: object) -> LabelScores:
    return LabelScores("liver", 0.9, entropy, None, 1500.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("entropy", "verdict"), [(0.1, "accept"), (0.2, "accept"), (0.3, "review"), (0.51, "reject")])
def test_the_bars_divide_accept_review_and_reject(sound: ScanQuality, entropy: float, verdict: str) -> None:
    found = decide(liver(entropy), FALLING, sound, BARS)
    assert (found.decision, found.expected_dsc) == (verdict, pytest.approx(1 - entropy))


def test_the_reason_names_what_spoke_against_the_mask(sound: ScanQuality) -> None:
    found = decide(liver(0.38, z={"volume": -3.2, "x": 0.4}), FALLING, sound, BARS)
    assert found.reason == (
        "expected DSC 0.62 below 0.80: boundary entropy 0.38 bits, mean probability 0.90, "
        "volume 3.2 robust z below human labels"
    )
    assert decide(liver(), FALLING, sound, BARS).reason == "expected DSC 0.90, accepted from 0.80"


def test_without_a_calibration_nothing_is_accepted_and_the_reason_says_so(sound: ScanQuality) -> None:
    found = decide(liver(0.0), None, sound, BARS)
    assert found == Decision("review", None, "no expected DSC: the model is not calibrated", ("unknown",))
    other = LabelScores("aorta", 0.99, 0.0, None, 90.0)
    assert decide(other, FALLING, sound, BARS).decision == "review"


def test_a_figure_far_from_human_labels_asks_for_review_whatever_is_expected(sound: ScanQuality) -> None:
    found = decide(liver(0.05, z={"x": -7.0}), FALLING, sound, BARS)
    assert (found.decision, found.codes) == ("review", ("z",))
    assert "position left to right 7.0 robust z below human labels" in found.reason


@pytest.mark.parametrize(
    ("flag", "verdict"),
    [
        ("mirrored: 4 of 5 pairs", "reject"),
        ("missing: no spleen", "reject"),
        ("hu_shift: +200 HU", "reject"),
        ("noise: 90 HU", "review"),
        ("metal: 9 ml", "review"),
        ("cropped: 70 mm", "review"),
        ("arms: 80 mm", "accept"),
    ],
)
def test_flags_overrule_the_expected_dsc(sound: ScanQuality, flag: str, verdict: str) -> None:
    found = decide(liver(0.0, flags=(flag,)), FALLING, sound, BARS)
    assert found.decision == verdict
    assert (flag in found.reason) == (verdict != "accept")


def test_a_class_may_have_bars_of_its_own(sound: ScanQuality) -> None:
    bars = bars_of(Settings(decision_bars={"liver": (0.95, 0.92)}))
    assert decide(liver(0.1), FALLING, sound, bars).decision == "reject"
    assert decide(LabelScores("spleen", 0.9, 0.1, None, 200.0), FALLING, sound, bars).decision == "accept"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decision_bars": {"livr": (0.9, 0.5)}}, "unknown class 'livr'"),
        ({"decision_bars": {"liver": (0.5, 0.9)}}, "liver has the bars 0.5 and 0.9"),
        ({"accept_dsc": 0.4, "reject_dsc": 0.6}, "reject_dsc 0.6 lies above accept_dsc 0.4"),
    ],
)
def test_bars_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**values)  # type: ignore[arg-type]


def test_scores_of_a_scan_that_was_trained_on_are_called_so(sound: ScanQuality) -> None:
    found = decide(liver(0.1, independent=False), FALLING, sound, BARS)
    assert "not independent: the model was trained on this scan" in found.reason


def test_an_empty_mask_is_judged_by_how_often_empty_ones_were_right(sound: ScanQuality) -> None:
    found = decide(LabelScores("liver", None, None, None, 0.0), FALLING, sound, BARS)
    assert (found.decision, found.expected_dsc) == ("reject", 0.25)
    assert found.reason == "expected DSC 0.25 below 0.50: nothing found"


def test_a_case_is_held_back_by_its_scan_or_by_most_of_its_masks(sound: ScanQuality) -> None:
    good, low = decide(liver(0.1), FALLING, sound, BARS), decide(liver(0.3), FALLING, sound, BARS)
    noisy = decide(liver(0.1, flags=("noise: 90 HU",)), FALLING, sound, BARS)
    mirrored = decide(liver(0.1, flags=("mirrored: 4 of 5",)), FALLING, sound, BARS)
    assert case_decision({"a": good, "b": low}).decision == "accept"
    assert case_decision({"a": good, "b": low, "c": low}).codes == ("low",)
    assert case_decision({"a": good, "b": noisy}).codes == ("noise",)
    assert case_decision({"a": good, "b": mirrored}).decision == "reject"
