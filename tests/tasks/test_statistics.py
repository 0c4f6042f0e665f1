"""Intervals and tests over patients: by hand on tiny data, against scipy, and their coverage on simulated data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, wilcoxon
from sklearn.metrics import roc_auc_score

from tasks.statistics import (
    bootstrap_auc,
    bootstrap_mean,
    bootstrap_mean_of_means,
    bootstrap_means,
    bootstrap_ratio,
    holm,
    paired_comparison,
)

NAN = float("nan")


def test_two_patients_give_the_interval_one_can_work_out() -> None:
    # Resamples are (0, 0), (0, 1), (1, 0), (1, 1): a quarter of the means is 0, a quarter is 1.
    found = bootstrap_mean([0.0, 1.0])
    assert (found.mean, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 2)


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = bootstrap_mean([0.7, 0.7, 0.7])
    assert (found.mean, found.low, found.high) == pytest.approx((0.7, 0.7, 0.7))


def test_one_patient_says_nothing_about_the_spread_however_many_scans() -> None:
    found = bootstrap_mean([0.4, 0.8, 0.9], ["p", "p", "p"])
    assert found.mean == pytest.approx(0.7)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.n == 1


def test_nan_is_counted_out_and_never_as_zero() -> None:
    with_gaps, without = bootstrap_mean([0.2, NAN, 0.6, NAN]), bootstrap_mean([0.2, 0.6])
    assert with_gaps == without
    nothing = bootstrap_mean([NAN, NAN])
    assert nothing.n == 0
    assert math.isnan(nothing.mean)


def test_scans_of_a_patient_are_drawn_together() -> None:
    # Two patients: means of a resample are 0, 1 or the mean of all scans, (3 x 0 + 1) / 4.
    grouped = bootstrap_mean([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert (grouped.mean, grouped.low, grouped.high, grouped.n) == (0.25, 0.0, 1.0, 2)
    single = bootstrap_mean([0.0, 0.0, 0.0, 1.0])
    assert single.high < 1.0


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly() -> None:
    values = np.random.default_rng(1).beta(8, 2, size=40)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    other = bootstrap_mean(values, seed=6)
    assert other != bootstrap_mean(values, seed=5)
    assert other.low == pytest.approx(bootstrap_mean(values, seed=5).low, abs=0.01)


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(2).beta(8, 2, size=50)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=3).confidence_interval
    ours = bootstrap_mean(values, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_columns_are_what_each_alone_would_be() -> None:
    values = np.random.default_rng(3).random((30, 3))
    values[::4, 1] = NAN
    groups = [index // 2 for index in range(30)]
    together = bootstrap_means(values, groups)
    for column, found in enumerate(together):
        alone = bootstrap_mean(values[:, column], groups)
        assert (found.mean, found.low, found.high, found.n) == pytest.approx(
            (alone.mean, alone.low, alone.high, alone.n), abs=1e-12
        )


def test_95_of_100_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(4)
    hits = [
        (found := bootstrap_mean(rng.beta(8, 2, size=60), resamples=500)).low <= 0.8 <= found.high for _ in range(400)
    ]
    assert 0.91 <= np.mean(hits) <= 0.98


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_interval_lies_within_the_values_and_around_the_mean(values: list[float]) -> None:
    found = bootstrap_mean(values, resamples=200)
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    assert found.mean == pytest.approx(np.mean(values))


def test_ratio_weighs_lesions_and_not_patients() -> None:
    found = bootstrap_ratio([1, 0, 0], [4, 1, 0])
    assert found.mean == pytest.approx(1 / 5)
    assert found.n == 2  # the third has no lesion to find
    assert (found.low, found.high) == (0.0, 0.25)


def test_mean_of_means_lets_a_rare_class_count_as_much() -> None:
    values = np.array([[0.9, NAN], [0.9, NAN], [0.9, 0.5]])
    assert bootstrap_mean_of_means(values).mean == pytest.approx(0.7)
    assert bootstrap_mean_of_means(np.full((2, 2), NAN)).n == 0


def test_comparison_by_hand() -> None:
    found = paired_comparison([0.9, 0.8, 0.7, NAN], [0.8, 0.7, 0.6, 0.1])
    assert found.difference.mean == pytest.approx(0.1)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.1, 0.1))
    assert found.difference.n == 3
    # All three differences point one way: 2 of the 2^3 sign patterns are as extreme.
    assert found.p_wilcoxon == pytest.approx(2 / 8)


def test_wilcoxon_is_scipys_on_the_patients_means() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random(20), rng.random(20)
    groups = [index // 2 for index in range(20)]
    expected = wilcoxon((a - b).reshape(10, 2).mean(axis=1)).pvalue
    assert paired_comparison(a, b, groups).p_wilcoxon == pytest.approx(expected)


def test_a_model_compared_with_itself_differs_by_nothing() -> None:
    found = paired_comparison([0.1, 0.5, 0.9], [0.1, 0.5, 0.9])
    assert found.difference.mean == 0
    assert found.p_wilcoxon == 1
    assert found.p_bootstrap == 1


def test_equal_models_are_told_apart_in_few_of_many_tries() -> None:
    rng = np.random.default_rng(6)
    small = [paired_comparison(rng.random(25), rng.random(25), resamples=300).p_bootstrap < 0.05 for _ in range(300)]
    assert np.mean(small) < 0.11


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, NAN]) == pytest.approx([0.03, 0.06, 0.06, NAN], nan_ok=True)
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


def test_auc_counts_ties_half_and_agrees_with_scikit_learn() -> None:
    assert bootstrap_auc([0.1, 0.4, 0.4, 0.8], [False, False, True, True]).mean == pytest.approx(0.875)
    rng = np.random.default_rng(7)
    scores, truth = rng.integers(0, 6, 80), rng.random(80) < 0.4
    assert bootstrap_auc(scores, truth).mean == pytest.approx(roc_auc_score(truth, scores))


def test_auc_needs_both_kinds_of_patients() -> None:
    assert math.isnan(bootstrap_auc([0.1, 0.2], [True, True]).mean)
    alone = bootstrap_auc([0.1, 0.2, 0.3], [True, False, False])
    assert alone.mean == 0
    assert math.isnan(alone.low)


def test_a_group_is_needed_for_each_value() -> None:
    with pytest.raises(ValueError, match="2 values of 1 groups"):
        bootstrap_mean([0.1, 0.2], ["p"])
