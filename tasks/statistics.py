"""Intervals and paired tests over patients: percentile bootstrap, Wilcoxon, Holm. A value that is NaN was not measured.

Every function draws whole patients (`groups`): several scans of one patient are not independent. The percentile interval
is used (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): unlike BCa it is defined where all
values are equal, and can be worked out by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wilcoxon

LEVEL = 0.95
RESAMPLES = 2000
SEED = 2023
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over patients and its 95 % interval.

    n: patients with a value. mean is NaN without one, low and high are NaN below two: one patient says nothing about
    the spread.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


@dataclass(frozen=True)
class Comparison:
    """Of a model `a` with a model `b` on the same patients.

    difference: mean of a - b with its bootstrap interval. p_bootstrap: two-sided, the share of resamples on the other
    side of 0, doubled. p_wilcoxon: signed-rank test of the patients' differences, 1 where all are 0. NaN below two
    patients.
    """

    difference: Interval
    p_bootstrap: float
    p_wilcoxon: float


def bootstrap_mean(
    values: ArrayLike, groups: Sequence[Any] | None = None, *, seed: int = SEED, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean of the values that are not NaN, and its 95 % percentile interval over resampled patients.

    values: (n,) floats. groups: the patient of each value, None where each is one. The mean is that of the values, so
    a patient with two scans weighs twice. The same seed gives the same interval.
    """
    return bootstrap_means(np.asarray(values, dtype=float)[:, None], groups, seed=seed, resamples=resamples)[0]


def bootstrap_means(
    values: ArrayLike, groups: Sequence[Any] | None = None, *, seed: int = SEED, resamples: int = RESAMPLES
) -> list[Interval]:
    """Return `bootstrap_mean` of each column of values (n, M), at the cost of little more than one."""
    sums, counts = _per_patient(values, groups)
    means = [_mean_interval(sums[:, m], counts[:, m], seed, resamples)[0] for m in range(sums.shape[1])]
    return means


def paired_comparison(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[Any] | None = None,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Return how `a` differs from `b`, (n,) each, value by value of the same cases; pairs with a NaN do not count."""
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    sums, counts = _per_patient(difference[:, None], groups)
    interval, draws = _mean_interval(sums[:, 0], counts[:, 0], seed, resamples)
    if interval.n < 2:
        return Comparison(interval, float("nan"), float("nan"))
    scored = counts[:, 0] > 0
    per_patient = sums[scored, 0] / counts[scored, 0]
    signed_rank = 1.0 if not per_patient.any() else float(wilcoxon(per_patient).pvalue)
    other_side = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
    return Comparison(interval, min(1.0, 2.0 * max(other_side, 1.0 / (resamples + 1))), signed_rank)


def holm(p_values: ArrayLike) -> Floats:
    """Return the p-values adjusted for their number, so that one error among all stays below the level.

    Step-down procedure of Holm (Scandinavian Journal of Statistics 6, 1979). NaN stays NaN and does not count.
    """
    given = np.asarray(p_values, dtype=float)
    adjusted = np.full(given.shape, np.nan)
    known = np.flatnonzero(np.isfinite(given))
    order = known[np.argsort(given[known], kind="stable")]
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def _per_patient(values: ArrayLike, groups: Sequence[Any] | None) -> tuple[Floats, Floats]:
    """Return the sums and the counts of the values that are not NaN, (patients, M) each."""
    given = np.asarray(values, dtype=float)
    codes = np.arange(len(given)) if groups is None else pd.factorize(np.asarray(groups, dtype=object))[0]
    if len(codes) != len(given):
        raise ValueError(f"{len(given)} values of {len(codes)} groups: expected one group a value")
    patients = int(codes.max()) + 1 if len(codes) else 0
    finite = np.isfinite(given)
    sums, counts = np.zeros((patients, given.shape[1])), np.zeros((patients, given.shape[1]))
    np.add.at(sums, codes, np.where(finite, given, 0.0))
    np.add.at(counts, codes, finite.astype(float))
    return sums, counts


def _mean_interval(sums: Floats, counts: Floats, seed: int, resamples: int) -> tuple[Interval, Floats]:
    """Return the interval, and the resampled means (resamples,)."""
    scored = counts > 0
    own_sums, own_counts, n = sums[scored], counts[scored], int(scored.sum())
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0), np.empty(0)
    mean = float(own_sums.sum() / own_counts.sum())
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1), np.empty(0)
    times = _times_drawn(n, seed, resamples)
    draws = (times @ own_sums.astype(np.float32)) / (times @ own_counts.astype(np.float32))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(mean, float(low), float(high), n), draws.astype(np.float64)


@lru_cache(maxsize=8)
def _times_drawn(patients: int, seed: int, resamples: int) -> NDArray[np.float32]:
    """Return how often each patient is drawn in each resample, (resamples, patients).

    The draws depend on the number of patients alone, so that classes scored in as many patients share them.
    """
    drawn = np.random.default_rng(seed).integers(patients, size=(resamples, patients))
    flat = (drawn + np.arange(resamples)[:, None] * patients).ravel()
    times: NDArray[np.float32] = (
        np.bincount(flat, minlength=resamples * patients).reshape(resamples, patients).astype(np.float32)
    )
    return times
