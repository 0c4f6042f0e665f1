"""What a plan draws: shares by hand, and frequencies that agree with them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_source import AORTA, LIVER, SPLEEN
from scipy.stats import chisquare

from datasets_registry.taxonomy import class_info
from models.plan import SamplingPlan, TrainCase
from models.settings import ModelSettings, TrainSettings

TUMOUR = class_info("liver_tumor").channel
MODEL = ModelSettings(classes=("spleen", "liver", "aorta", "liver_tumor"), patch=(16, 8, 8))
SHAPE = (30, 20, 10)


def case(case_id: str, annotated: tuple[int, ...], shown: tuple[int, ...]) -> TrainCase:
    dataset = case_id.split("/")[0]
    return TrainCase(case_id, annotated, SHAPE, {channel: np.array([[9, 9, 9]]) for channel in shown}, dataset)


# Three livers in two sets, one of them with a tumour; one set of one spleen. b/1 has a spleen that nobody annotated.
CASES = [
    case("a/1", (LIVER, TUMOUR), (LIVER, TUMOUR)),
    case("a/2", (LIVER, TUMOUR), (LIVER,)),
    case("b/1", (LIVER,), (LIVER, SPLEEN)),
    case("c/1", (SPLEEN, AORTA), (SPLEEN,)),
]


def draw(train: TrainSettings, number: int = 2000, cases: list[TrainCase] = CASES) -> list[tuple[str, int | None]]:
    plan, random = SamplingPlan(cases, MODEL, train), np.random.default_rng(5)
    picks = [plan.draw(random) for _ in range(number)]
    return [(pick.case.case_id, pick.channel) for pick in picks]


def test_even_weights_draw_classes_evenly_and_cases_evenly_within_a_class() -> None:
    shares = SamplingPlan(CASES, MODEL, TrainSettings(foreground=0.6)).shares()
    # liver, spleen and tumour occur, the aorta is absent: 0.2 each; livers are shared by three cases
    assert shares.classes == pytest.approx({"anywhere": 0.4, "spleen": 0.2, "liver": 0.2, "liver_tumor": 0.2})
    liver = 0.2 / 3
    assert shares.cases == pytest.approx(
        {"a/1": 0.1 + liver + 0.2, "a/2": 0.1 + liver, "b/1": 0.1 + liver, "c/1": 0.1 + 0.2}
    )
    assert shares.datasets == pytest.approx({"a": 0.4 + 2 * liver, "b": 0.1 + liver, "c": 0.3})


def test_weights_multiply() -> None:
    train = TrainSettings(
        foreground=1.0, dataset_weights={"a": 3.0}, class_weights={"spleen": 2.0}, lesion_weight=5.0, rarity=1.0
    )
    shares = SamplingPlan(CASES, MODEL, train).shares()
    # spleen 2 x 1 / 1 case = 2; liver 1 / 3 cases; tumour 5 / 1 case: of 22 / 3
    assert shares.classes == pytest.approx({"anywhere": 0.0, "spleen": 6 / 22, "liver": 1 / 22, "liver_tumor": 15 / 22})
    # of the livers, a/1 and a/2 count 3 each and b/1 once
    assert shares.cases["b/1"] == pytest.approx(1 / 22 / 7)
    assert shares.cases["a/2"] == pytest.approx(3 / 22 / 7)


def test_rarity_of_minus_one_draws_a_class_as_often_as_cases_show_it() -> None:
    shares = SamplingPlan(CASES, MODEL, TrainSettings(foreground=1.0, rarity=-1.0)).shares()
    assert shares.classes == pytest.approx({"anywhere": 0.0, "spleen": 1 / 5, "liver": 3 / 5, "liver_tumor": 1 / 5})


@pytest.mark.parametrize(
    "train",
    [
        TrainSettings(),
        TrainSettings(foreground=0.5, dataset_weights={"a": 0.3, "c": 2.0}, lesion_weight=3.0, rarity=0.5),
        TrainSettings(foreground=0.9, class_weights={"liver": 0.0}, dataset_weights={"b": 0.0}),
    ],
)
def test_frequencies_agree_with_the_shares(train: TrainSettings) -> None:
    drawn, shares = draw(train), SamplingPlan(CASES, MODEL, train).shares()
    names = {"anywhere": None, "spleen": SPLEEN, "liver": LIVER, "liver_tumor": TUMOUR}
    for counted, expected in (
        (Counter(channel for _, channel in drawn), {names[name]: share for name, share in shares.classes.items()}),
        (Counter(case_id for case_id, _ in drawn), shares.cases),
        (Counter(case_id.split("/")[0] for case_id, _ in drawn), shares.datasets),
    ):
        possible = {key: share for key, share in expected.items() if share > 0}
        assert set(counted) == set(possible)
        found = [counted[key] for key in possible]
        # the seed is fixed, so this is no game of chance; a plan off by a tenth gives a p below 1e-4
        assert chisquare(found, np.array(list(possible.values())) * sum(found)).pvalue > 0.01


SOME = st.sets(st.sampled_from([LIVER, SPLEEN, AORTA]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), SOME, SOME), min_size=1, max_size=6),
    st.floats(0, 1),
    st.floats(-1, 1),
)
def test_a_class_is_drawn_only_where_it_is_annotated_and_present(
    made: list[tuple[str, set[int], set[int]]], foreground: float, rarity: float
) -> None:
    cases = [
        case(f"{name}/{n}", (*sorted(looked), TUMOUR), tuple(shown)) for n, (name, looked, shown) in enumerate(made)
    ]
    by_id = {c.case_id: c for c in cases}
    for case_id, channel in draw(TrainSettings(foreground=foreground, rarity=rarity), 60, cases):
        if channel is not None:
            assert channel in by_id[case_id].annotated
            assert len(by_id[case_id].foreground[channel])


def test_a_foreground_patch_holds_its_voxel_and_stays_inside() -> None:
    plan, random = SamplingPlan(CASES, MODEL, TrainSettings(foreground=1.0)), np.random.default_rng(0)
    for _ in range(200):
        start = plan.draw(random).start
        for at, size, n in zip(start, MODEL.patch, SHAPE, strict=True):
            assert 0 <= at <= 9 < at + size <= n


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (TrainSettings(dataset_weights={"lits": 2.0}), r"dataset_weights: lits not among.*\(a, b, c\)"),
        (TrainSettings(class_weights={"pancreas": 2.0}), "class_weights: pancreas not among"),
        (TrainSettings(dataset_weights={"a": 0, "b": 0, "c": 0}), "nothing can be drawn"),
        (TrainSettings(class_weights=dict.fromkeys(MODEL.classes, 0.0)), "nothing can be drawn"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(train: TrainSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingPlan(CASES, MODEL, train)
