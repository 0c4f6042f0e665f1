"""What the rows of the learning study say: the figures of each claim by seed, and whether the claim holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.learning_jobs import COLLECTION
from datasets_registry.taxonomy import class_info

Row = dict[str, Any]
LARGEST_LOSS = 0.02
"""What weighted sampling may cost any other class, in DSC."""


@dataclass(frozen=True)
class Figure:
    """One figure of a claim, a value for each seed. at_least, at_most, above: bars for the mean; none: only shown."""

    what: str
    values: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds, 0 for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def holds(self) -> bool | None:
        """Whether the mean keeps to the bars; None where there is none."""
        kept = []
        if self.at_least is not None:
            kept.append(self.mean >= self.at_least)
        if self.at_most is not None:
            kept.append(self.mean <= self.at_most)
        if self.above is not None:
            kept.append(self.mean > self.above)
        return all(kept) if kept else None

    @property
    def bar(self) -> str:
        """The bars in words, empty where there is none."""
        bars = (("at least", self.at_least), ("at most", self.at_most), ("above", self.above))
        return ", ".join(f"{word} {value:g}" for word, value in bars if value is not None)


@dataclass(frozen=True)
class Claim:
    """One claim and its figures; without figures it was not measured."""

    title: str
    figures: tuple[Figure, ...]

    @property
    def holds(self) -> bool | None:
        """Whether every figure with a bar reaches it; None where nothing was measured."""
        judged = [figure.holds for figure in self.figures if figure.holds is not None]
        return all(judged) if judged else None


class Rows:
    """The rows of all jobs and of the timing, by arm and seed."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._by = {(row["arm"], row["seed"]): row for row in self.rows if "arm" in row}
        self._times = {row["seed"]: row for row in self.rows if "one" in row}

    def seeds(self, *arms: str) -> list[int]:
        """Return the seeds for which all `arms` are there."""
        return sorted(seed for seed in {seed for _, seed in self._by} if all((arm, seed) in self._by for arm in arms))

    def row(self, arm: str, seed: int) -> Row:
        """Return the row of a job."""
        return self._by[arm, seed]

    def timed_seeds(self) -> list[int]:
        """Return the seeds whose inference was timed."""
        return sorted(self._times)

    def times(self, seed: int) -> tuple[float, float]:
        """Return seconds a scan of the one network and of all the others together."""
        return self._times[seed]["one"], self._times[seed]["many"]


def title(name: str) -> str:
    """Return a class as people write it."""
    return class_info(name).title


def class_dsc(scores: dict[str, dict[str, list[float]]], name: str, datasets: Sequence[str] | None = None) -> float:
    """Return the mean DSC of a class over the scans that show it, of `datasets` or all; nan where none does."""
    found = [scores[name][dataset] for dataset in scores[name] if datasets is None or dataset in datasets]
    total = sum(count for _, count in found)
    return sum(mean * count for mean, count in found) / total if total else float("nan")


def mean_dsc(scores: dict[str, dict[str, list[float]]]) -> float:
    """Return the mean over classes of each class's mean DSC, classes that no scan shows left out."""
    return statistics.fmean(class_dsc(scores, name) for name in scores if scores[name])


def rarest(row: Row, count: int = 3) -> list[str]:
    """Return the classes annotated in the fewest training scans."""
    annotated: dict[str, int] = row["annotated_cases"]
    return sorted(annotated, key=lambda name: annotated[name])[:count]


def all_claims(rows: Rows) -> list[Claim]:
    """Return the claims of the study in order."""
    return [partial_labels(rows), one_for_all(rows), later_classes(rows), long_tail(rows)]


def partial_labels(rows: Rows) -> Claim:
    """Partial labels against the full truth and against unlabelled taken for background."""
    seeds = rows.seeds("partial", "full", "naive")
    dsc = {arm: [mean_dsc(rows.row(arm, seed)["dsc"]) for seed in seeds] for arm in ("partial", "full", "naive")}
    figures = [
        Figure("mean DSC, partial labels", tuple(dsc["partial"])),
        Figure("mean DSC, full truth", tuple(dsc["full"])),
        Figure("mean DSC, unlabelled taken for background", tuple(dsc["naive"])),
        Figure("partial / full", _each(lambda a, b: a / b, dsc["partial"], dsc["full"]), 0.95),
        Figure("partial - naive", _each(lambda a, b: a - b, dsc["partial"], dsc["naive"]), 0.15),
    ]
    return _claim("Partial labels do almost as well as full ones, and naive training does not", seeds, figures)


def one_for_all(rows: Rows) -> Claim:
    """One network for all classes against one for each set, over the same classes and scans."""
    arms = [f"only {dataset}" for dataset in COLLECTION]
    seeds = rows.seeds("partial", *arms)
    one, many, own_one, own_many = [], [], [], []
    for seed in seeds:
        pairs = [(arm, name) for arm in arms for name in rows.row(arm, seed)["dsc"]]
        shared = rows.row("partial", seed)["dsc"]
        one.append(statistics.fmean(class_dsc(shared, name) for _, name in pairs))
        many.append(statistics.fmean(class_dsc(rows.row(arm, seed)["dsc"], name) for arm, name in pairs))
        own = [(arm, name, [arm.removeprefix("only ")]) for arm, name in pairs]
        own = [(arm, name, sets) for arm, name, sets in own if set(sets) & shared[name].keys()]
        own_one.append(statistics.fmean(class_dsc(shared, name, sets) for _, name, sets in own))
        own_many.append(statistics.fmean(class_dsc(rows.row(arm, seed)["dsc"], name, sets) for arm, name, sets in own))
    timed = [rows.times(seed) for seed in rows.timed_seeds()]
    figures = [
        Figure("mean DSC, one network for all", tuple(one)),
        Figure("mean DSC, one network for each set", tuple(many)),
        Figure("one - each, scans of all sets", _each(lambda a, b: a - b, one, many), 0.0),
        Figure("one - each, each set's own scans only", _each(lambda a, b: a - b, own_one, own_many)),
    ]
    if timed:
        figures += [
            Figure("seconds a scan, one network", tuple(a for a, _ in timed)),
            Figure("seconds a scan, all the others", tuple(b for _, b in timed)),
            Figure("times faster", tuple(b / a for a, b in timed), 4.0),
        ]
    return _claim("One network for all is no worse than one for each set, and faster", seeds, figures)


def later_classes(rows: Rows) -> Claim:
    """Two classes added to a network that is frozen otherwise."""
    seeds = rows.seeds("extended")
    kept, logits = [], []
    new: dict[str, list[float]] = {}
    for seed in seeds:
        row = rows.row("extended", seed)
        after = row["extension"]["dsc"]
        kept.append(max(abs(class_dsc(row["dsc"], name) - class_dsc(after, name)) for name in row["dsc"]))
        logits.append(row["extension"]["largest_change"])
        for name in row["extension"]["classes"]:
            new.setdefault(name, []).append(class_dsc(after, name))
    figures = [
        Figure("largest change of an old class's DSC", tuple(kept), at_most=0.0),
        Figure("largest change of an old logit", tuple(logits), at_most=0.0),
        *(Figure(f"DSC of the new class {title(name)}", tuple(values), 0.6) for name, values in new.items()),
    ]
    return _claim("Two classes added later leave the old ones as they were", seeds, figures)


def long_tail(rows: Rows) -> Claim:
    """Weighted sampling against scans and classes drawn as often as they come."""
    seeds = rows.seeds("tail as it comes", "tail weighted")
    figures = []
    if seeds:
        rare = rarest(rows.row("tail weighted", seeds[0]))
        figures += _tail_figures(rows, "tail weighted", seeds, rare, judged=True)
        if even := rows.seeds("tail as it comes", "tail even"):
            figures += _tail_figures(rows, "tail even", even, rare, judged=False)
    return _claim("Weighted sampling serves the rarest classes and costs the others little", seeds, figures)


def _tail_figures(rows: Rows, arm: str, seeds: Sequence[int], rare: Sequence[str], *, judged: bool) -> list[Figure]:
    changes = tail_changes(rows, arm, seeds)
    others = {name: values for name, values in changes.items() if name not in rare}
    worst = min(others, key=lambda name: statistics.fmean(others[name]))
    label = arm.removeprefix("tail ")
    zero, most = (0.0, -LARGEST_LOSS) if judged else (None, None)
    return [
        *(Figure(f"{label}: gain of {title(name)}", tuple(changes[name]), above=zero) for name in rare),
        Figure(f"{label}: change of {title(worst)}, the other class that loses most", tuple(others[worst]), most),
    ]


def tail_changes(rows: Rows, arm: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Return for each class how its DSC under `arm` differs from that of sampling as it comes, by seed."""
    names = [name for name, found in rows.row(arm, seeds[0])["dsc"].items() if found]
    return {
        name: [
            class_dsc(rows.row(arm, seed)["dsc"], name) - class_dsc(rows.row("tail as it comes", seed)["dsc"], name)
            for seed in seeds
        ]
        for name in names
    }


def _each(
    function: Callable[[float, float], float], first: Sequence[float], second: Sequence[float]
) -> tuple[float, ...]:
    return tuple(function(a, b) for a, b in zip(first, second, strict=True))


def _claim(title: str, seeds: Sequence[int], figures: Sequence[Figure]) -> Claim:
    return Claim(title, tuple(figures) if seeds else ())
