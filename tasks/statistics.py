"""Intervals and paired tests over patients: percentile bootstrap, Wilcoxon, Holm. A value that is NaN was not measured.

Every function draws whole patients (`groups`): several scans of one patient are not independent. The interval is the
percentile one (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): unlike BCa it is defined
where all values are equal, and can be worked out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
    values: ArrayLike, groups: ArrayLike | None = None, *, seed: int = SEED, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean of the values that are not NaN, and its 95 % percentile interval over resampled patients.

    values: (n,) floats. groups: the patient of each value, None where each is one. The mean is that of the values, so
    a patient with two scans weighs twice. The same seed gives the same interval.
    """
    return bootstrap_means(np.asarray(values, dtype=float)[:, None], groups, seed=seed, resamples=resamples)[0]


def bootstrap_means(
    values: ArrayLike, groups: ArrayLike | None = None, *, seed: int = SEED, resamples: int = RESAMPLES
) -> list[Interval]:
    """Return `bootstrap_mean` of each column of values (n, M), at the cost of little more than one."""
    return [interval for interval, _ in _mean_intervals(*_per_patient(values, groups), seed, resamples)]


def bootstrap_ratio(
    parts: ArrayLike,
    wholes: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return sum(parts) / sum(wholes), (n,) each, with its 95 % interval over resampled patients: lesions found of all.

    n: patients with a whole above 0; the others say nothing.
    """
    both = np.stack([np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)], axis=1)
    sums, _ = _per_patient(both, groups)
    return _mean_intervals(sums[:, :1], sums[:, 1:], seed, resamples)[0][0]


def bootstrap_mean_of_means(
    values: ArrayLike, groups: ArrayLike | None = None, *, seed: int = SEED, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean of the columns' means of values (n, M), with its 95 % interval over resampled patients.

    Columns are classes: each counts alike, however many patients it was scored in. A resample without a value of a
    class takes the class's mean: leaving the class out would shift the mean towards classes scored more often. n:
    patients with any value.
    """
    sums, counts = _per_patient(values, groups)
    some, scored = counts.any(axis=0), counts.any(axis=1)
    n = int(scored.sum())
    if n == 0:
        return _nothing(0)
    sums, counts = sums[np.ix_(scored, some)], counts[np.ix_(scored, some)]
    means = sums.sum(axis=0) / counts.sum(axis=0)
    mean = float(means.mean())
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    times = _times_drawn(n, seed, resamples)
    total, weight = times @ sums.astype(np.float32), times @ counts.astype(np.float32)
    filled = np.broadcast_to(means.astype(np.float32), total.shape).copy()
    draws = np.divide(total, weight, out=filled, where=weight > 0).mean(axis=1)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(mean, float(low), float(high), n)


def paired_comparison(
    a: ArrayLike,
    b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Return how `a` differs from `b`, (n,) each, value by value of the same cases; pairs with a NaN do not count."""
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    sums, counts = _per_patient(difference[:, None], groups)
    ((interval, draws),) = _mean_intervals(sums, counts, seed, resamples)
    if interval.n < 2:
        return Comparison(interval, float("nan"), float("nan"))
    scored = counts[:, 0] > 0
    per_patient = sums[scored, 0] / counts[scored, 0]
    signed_rank = 1.0 if not per_patient.any() else float(wilcoxon(per_patient).pvalue)
    other_side = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
    return Comparison(interval, min(1.0, 2.0 * max(other_side, 1.0 / (resamples + 1))), signed_rank)


def bootstrap_auc(
    scores: ArrayLike,
    positive: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the area under the ROC curve of `scores` (n,), with its 95 % interval over resampled patients.

    It is the chance that a positive has a higher score than a negative, ties counting half (Mann and Whitney, 1947).
    positive: (n,) bool. NaN without both; a score that is NaN does not count. Patients are drawn among the positive
    and among the negative apart, so that no resample lacks one of them. n: patients.
    """
    given, truth = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    codes = np.arange(len(given)) if groups is None else pd.factorize(np.asarray(groups))[0]
    kept = np.isfinite(given)
    given, truth, codes = given[kept], truth[kept], codes[kept]
    patients = len(np.unique(codes))
    if not truth.any() or truth.all():
        return _nothing(patients)
    above, below = given[truth][:, None], given[~truth][None, :]
    wins = (above > below) + 0.5 * (above == below)  # (positives, negatives)
    if min(truth.sum(), (~truth).sum()) < 2:
        return Interval(float(wins.mean()), float("nan"), float("nan"), patients)
    first = _row_weights(codes[truth], seed, resamples)
    second = _row_weights(codes[~truth], seed + 1, resamples)
    draws = ((first @ wins) * second).sum(axis=1) / (first.sum(axis=1) * second.sum(axis=1))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(wins.mean()), float(low), float(high), patients)


def _row_weights(codes: NDArray[np.intp], seed: int, resamples: int) -> NDArray[np.float32]:
    """Return how often each row is drawn, (resamples, rows), when patients are: rows of one patient go together."""
    _, patient = np.unique(codes, return_inverse=True)
    return _times_drawn(int(patient.max()) + 1, seed, resamples)[:, patient]


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


def _nothing(n: int) -> Interval:
    nan = float("nan")
    return Interval(nan, nan, nan, n)


def _per_patient(values: ArrayLike, groups: ArrayLike | None) -> tuple[Floats, Floats]:
    """Return the sums and the counts of the values that are not NaN, (patients, M) each."""
    given = np.asarray(values, dtype=float)
    codes = np.arange(len(given)) if groups is None else pd.factorize(np.asarray(groups))[0]
    if len(codes) != len(given):
        raise ValueError(f"{len(given)} values of {len(codes)} groups: expected one group a value")
    patients = int(codes.max()) + 1 if len(codes) else 0
    finite = np.isfinite(given)
    sums, counts = np.zeros((patients, given.shape[1])), np.zeros((patients, given.shape[1]))
    np.add.at(sums, codes, np.where(finite, given, 0.0))
    np.add.at(counts, codes, finite.astype(float))
    return sums, counts


def _mean_intervals(sums: Floats, counts: Floats, seed: int, resamples: int) -> list[tuple[Interval, Floats]]:
    """Return the interval and the resampled means (resamples,) of each column of sums and counts (patients, M)."""
    results: list[tuple[Interval, Floats]] = [(_nothing(0), np.empty(0))] * sums.shape[1]
    alike: dict[bytes, list[int]] = {}  # columns in which the same patients have as many values are drawn together
    for column in range(sums.shape[1]):
        alike.setdefault(counts[:, column].tobytes(), []).append(column)
    for columns in alike.values():
        scored = counts[:, columns[0]] > 0
        n = int(scored.sum())
        if n == 0:
            continue
        own, weight = sums[np.ix_(scored, np.array(columns))], counts[scored, columns[0]]
        means = own.sum(axis=0) / weight.sum()
        if n == 1:
            draws = np.empty((0, len(columns)))
            bounds = np.full((2, len(columns)), np.nan)
        else:
            totals = _times_drawn(n, seed, resamples) @ np.column_stack([own, weight]).astype(np.float32)
            draws = (totals[:, :-1] / totals[:, -1:]).astype(np.float64)
            per_patient = own / weight[:, None]
            draws = draws.clip(per_patient.min(axis=0), per_patient.max(axis=0))  # what float32 rounded beyond them
            tail = 100 * (1 - LEVEL) / 2
            bounds = np.percentile(draws, [tail, 100 - tail], axis=0)
        for place, column in enumerate(columns):
            interval = Interval(float(means[place]), float(bounds[0, place]), float(bounds[1, place]), n)
            results[column] = (interval, draws[:, place])
    return results


@lru_cache(maxsize=16)
def _times_drawn(patients: int, seed: int, resamples: int) -> NDArray[np.float32]:
    """Return how often each patient is drawn in each resample, (resamples, patients).

    The draws depend on the number of patients alone, so that classes scored in as many patients share them. float32:
    half the bytes to read for each class, and a bound needs no more digits.
    """
    kind = np.uint16 if patients < 2**16 else np.int64
    drawn = np.random.default_rng(seed).integers(patients, size=(resamples, patients), dtype=kind)
    times = np.empty((resamples, patients), dtype=np.float32)
    for row, picks in zip(times, drawn, strict=True):
        row[:] = np.bincount(picks, minlength=patients)
    return times
