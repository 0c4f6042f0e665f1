"""The map from scores to expected DSC: monotone, within bounds, near the pooled one where a class has few cases."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.calibration import Calibration, Measured, cross_validated, doubts, fit
from tasks.calibration_picture import reliability_table
from tasks.calibration_run import calibration_figures, class_summary
from tasks.label_scores import LabelScores

NAMES = ("liver", "spleen", "pancreas", "liver_tumor")


def scores(name: str = "liver", prob: float | None = 0.9, entropy: float | None = 0.5, **more: object) -> LabelScores:
    return LabelScores(name, prob, entropy, **{"agreement": None, "ml": 10.0, **more})  # type: ignore[arg-type]


def measured(seed: int, cases: int = 12, names: tuple[str, ...] = NAMES) -> list[Measured]:
    """Cases of which the DSC falls with the entropy, with noise; every fourth lesion is missed or rightly not there."""
    random = np.random.default_rng(seed)
    found = []
    for case in range(cases):
        for number, name in enumerate(names):
            entropy = float(random.uniform(0.2, 0.9))
            dsc = float(np.clip(1.1 - entropy - 0.1 * number + random.normal(0, 0.05), 0, 1))
            one = scores(name, 1 - entropy / 2, entropy, z={"volume": float(random.normal(0, 2))})
            if name == "liver_tumor" and case % 4 == 0:
                one, dsc_or_none = scores(name, None, None, ml=0.0), None if case % 8 else 0.0
                found.append(Measured(f"set/{case}", f"g{case}", one, dsc_or_none))
                continue
            found.append(Measured(f"set/{case}", f"g{case}", one, dsc))
    return found


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 30),
    name=st.sampled_from([*NAMES, "aorta"]),
    prob=st.floats(0.5, 1),
    entropies=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    agreement=st.none() | st.floats(0, 1),
    z=st.floats(-12, 12),
    removed=st.floats(0, 1),
)
def test_more_doubt_never_raises_what_is_expected(seed, name, prob, entropies, agreement, z, removed):
    calibration = fit(measured(seed))
    low, high = sorted(entropies)
    plain = scores(name, prob, low, agreement=agreement, z={"x": z}, removed_share=removed)
    best = calibration.estimate(plain)
    assert 0 <= best <= 1
    worse = [
        replace(plain, boundary_entropy=high),
        replace(plain, mean_prob=prob * 0.9),
        replace(plain, z={"x": z + (1 if z >= 0 else -1)}),
        replace(plain, removed_share=min(1.0, removed + 0.1)),
    ]
    if agreement is not None:
        worse.append(replace(plain, agreement=agreement * 0.9))
    assert all(calibration.estimate(one) <= best + 1e-12 for one in worse)


def test_expected_dsc_follows_the_truth_of_cases_it_has_not_seen():
    pairs = cross_validated(measured(3, cases=30))
    figures = calibration_figures(pairs)
    assert figures["pearson"] > 0.85
    assert figures["spearman"] > 0.85
    assert figures["mean_absolute_error"] < 0.1
    assert figures["cases"] == 30
    means = reliability_table(pairs[~pairs["empty"]])
    assert int(means["masks"].sum()) == int(figures["masks"])
    assert means["expected"].is_monotonic_increasing
    assert set(class_summary(pairs)["class_name"]) == set(NAMES)


def test_no_patient_says_what_is_expected_of_it():
    # One patient whose masks are far worse than their scores: the map without it knows nothing of that.
    good = [one for one in measured(1) if not one.empty]
    odd = [Measured("set/odd", "odd", scores(name, 0.97, 0.21), 0.05) for name in ("liver", "spleen")]
    pairs = cross_validated([*good, *odd])
    assert (pairs[pairs["case_id"] == "set/odd"]["expected"] > 0.7).all()


def test_a_class_with_few_cases_stays_near_the_pooled_map_and_one_with_many_has_its_own():
    base = [Measured(f"a/{i}", f"a{i}", scores("liver", 0.9, 0.2 + 0.02 * (i % 10)), 0.9) for i in range(40)]
    worse = [Measured(f"b/{i}", f"b{i}", scores("pancreas", 0.9, 0.2 + 0.02 * (i % 10)), 0.5) for i in range(40)]
    few = fit([*base, *worse[:1]]).estimate(scores("pancreas", 0.9, 0.3))
    many = fit([*base, *worse]).estimate(scores("pancreas", 0.9, 0.3))
    # with one case the offset of about -0.4 counts a quarter
    assert few == pytest.approx(0.9 - 0.4 / 4, abs=0.04)
    assert many == pytest.approx(0.5, abs=0.03)


def test_an_empty_mask_is_expected_to_be_right_as_often_as_it_was():
    empty = scores("liver_tumor", None, None, ml=0.0)
    base = [one for one in measured(2) if not one.empty]
    right = [Measured(f"c/{i}", f"c{i}", empty, None) for i in range(6)]
    wrong = [Measured(f"d/{i}", f"d{i}", empty, 0.0) for i in range(2)]
    # rate of lesions (6 + 1) / (8 + 2) = 0.7, of the class (6 + 4 * 0.7) / (8 + 4)
    assert fit([*base, *right, *wrong]).estimate(empty) == pytest.approx(8.8 / 12)


def test_nothing_is_said_of_a_class_nobody_measured():
    calibration = fit(measured(4))
    assert calibration.expected_dsc(scores("aorta")) is None
    assert calibration.expected_dsc(scores("liver")) is not None


def test_a_map_comes_back_from_json_as_it_was():
    calibration = fit(measured(5), {"cases": 12})
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())), "run")
    for one in measured(6):
        assert again.estimate(one.scores) == pytest.approx(calibration.estimate(one.scores), abs=1e-12)
    assert again.run_id == "run"
    with pytest.raises(ValueError, match="format 0, expected 1; calibrate again"):
        Calibration.from_dict({"format": 0})


def test_too_little_to_calibrate_on_is_refused():
    with pytest.raises(ValueError, match="4 predicted masks with a human label, expected at least 10"):
        fit([one for one in measured(1, cases=1) if not one.empty] + [measured(1)[5]])
    with pytest.raises(ValueError, match="1 patients to calibrate on, expected at least 2"):
        cross_validated(measured(1, cases=1))


def test_doubts_are_none_where_nothing_is_known_and_z_counts_beyond_two():
    assert doubts(scores(agreement=None, z={"x": -1.9})) == {
        "improbable": pytest.approx(0.1), "entropy": 0.5, "disagreement": None, "odd": 0.0, "removed": 0.0,
    }  # fmt: skip
    assert doubts(scores(agreement=0.75, z={"x": -5.0, "volume": 3.0}))["odd"] == 3.0
    assert doubts(scores(z={"x": 99.0}))["odd"] == 8.0
