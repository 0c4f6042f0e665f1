"""Folds of the default split: five for cross-validation and one for the test, dealt once and never changed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

FOLDS = 5
"""Folds 0 to 4 are for cross-validation."""

TEST = 5
"""The fold that no training sees."""

_OLDER_SCHEMA = 3
"""Up to this schema version ingest wrote folds 0 to 4 into the row of a case, 0 being the test fold."""

_PREFERRED = (0, TEST, *range(1, FOLDS))
_CASES = "cases"
_MIN_SPREAD = 2

Attributes = Mapping[str, int]
"""What a split group brings: how many cases, of which data set, with which classes present."""


def fold_name(fold: float | None) -> str:
    """Return a fold as people call it: `fold 0` ... `fold 4`, `test`; `no fold` for null."""
    if fold is None or pd.isna(fold):
        return "no fold"
    return "test" if int(fold) == TEST else f"fold {int(fold)}"


def group_attributes(cases: pd.DataFrame, labels: pd.DataFrame) -> dict[str, Counter[str]]:
    """Return split group -> what its cases bring to a fold.

    cases: rows of `Tables.cases()` that may enter training. labels: their annotated labels, with `voxels`. A case
    without a human label counts for itself, not for its data set, so that those with one are spread evenly.
    """
    labelled = set(labels["case_id"])
    present: dict[str, set[str]] = defaultdict(set)
    shown = labels[labels["voxels"] > 0]
    for case_id, class_name in zip(shown["case_id"], shown["class_name"], strict=True):
        present[case_id].add(class_name)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for case_id, dataset, group in zip(cases["case_id"], cases["dataset"], cases["split_group"], strict=True):
        kind = "data set" if case_id in labelled else "unlabelled cases of"
        found[group].update([_CASES, f"{kind} {dataset}", *(f"class {name}" for name in present.get(case_id, ()))])
    return dict(found)


def deal(groups: Mapping[str, Attributes], dealt: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return a fold for every group that `dealt` (group -> fold) does not hold.

    Each data set and each class is spread over the six folds as evenly as whole groups allow, small data sets and rare
    classes first: iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-label Data,
    ECML PKDD 2011) with groups as units. What can have no more than two folds is in training first, then in the test.
    The same groups give the same folds in any order; what was dealt counts as it lies.
    """
    known = {group: fold for group, fold in (dealt or {}).items() if group in groups}
    folds = _Folds(groups, known)
    waiting = {group: groups[group] for group in sorted(groups.keys() - known.keys(), key=_shuffled)}
    result: dict[str, int] = {}
    while waiting:
        left: Counter[str] = Counter()
        for attributes in waiting.values():
            left.update(attributes)
        spread = [name for name in left if name != _CASES and folds.total[name] >= _MIN_SPREAD]
        rarest = min(spread, key=folds.first_served(left), default=_CASES)
        with_it = [group for group, attributes in waiting.items() if attributes.get(rarest)]
        for group in sorted(with_it, key=lambda name: -waiting[name][rarest]):  # stable: the shuffled order holds
            result[group] = folds.give(waiting.pop(group), rarest)
    return dict(sorted(result.items()))


class _Folds:
    """How many cases of each attribute every fold has, and how many it should have."""

    def __init__(self, groups: Mapping[str, Attributes], dealt: Mapping[str, int]) -> None:
        self.total: Counter[str] = Counter()
        self._has: dict[str, Counter[int]] = defaultdict(Counter)
        for attributes in groups.values():
            self.total.update(attributes)
        for group, fold in dealt.items():
            self._add(groups[group], fold)

    def first_served(self, left: Attributes) -> Callable[[str], tuple[bool, int, str]]:
        """Return the order of attributes: small data sets, then whatever has the fewest cases left."""

        def key(name: str) -> tuple[bool, int, str]:
            small = name.startswith("data set ") and self.total[name] <= FOLDS
            return (not small, left[name], name)

        return key

    def give(self, attributes: Attributes, rarest: str) -> int:
        """Put a group into the fold that lacks most of `rarest`, or else of all that the group brings; return it."""
        fold: int = max(_PREFERRED, key=lambda fold: self._need(fold, attributes, rarest))
        self._add(attributes, fold)
        return fold

    def _need(self, fold: int, attributes: Attributes, rarest: str) -> tuple[float, bool, float]:
        in_test = self._has[rarest][TEST]
        in_training = sum(self._has[rarest].values()) - in_test
        bare = not in_training if fold != TEST else not in_test and in_training > 0
        lacks = {name: self.total[name] / (FOLDS + 1) - self._has[name][fold] for name in attributes}
        return round(lacks[rarest], 9), bare, round(sum(lacks.values()), 9)

    def _add(self, attributes: Attributes, fold: int) -> None:
        for name, count in attributes.items():
            self._has[name][fold] += count


def _shuffled(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()


def settled_folds(cases: pd.DataFrame, dealt: pd.DataFrame, joined: Mapping[str, str]) -> pd.Series:
    """Return split group -> fold of every group that was dealt.

    cases: all rows of the table, their `split_group` as joined by twins. dealt: rows of the table `splits`. joined:
    group as written -> group as joined. A group has the fold in which a case of it was dealt, under its present or an
    earlier content. Where twins were found only after both had been dealt, the group leaves the test (a model has seen
    it) and takes the fold that was dealt first.
    """
    names = ["split_group", "fold", "committed_at", "case_id"]
    written = cases[cases["fold"].notna() & (cases["role"] == "train")]
    older = (written["schema_version"] <= _OLDER_SCHEMA) & (written["fold"] == 0)
    entries = [written.assign(fold=written["fold"].mask(older, TEST))[names]]
    if len(dealt):
        entries.append(
            dealt.assign(split_group=dealt["split_group"].map(lambda group: joined.get(group, group)))[names]
        )
        entries.append(dealt.drop(columns="split_group").merge(cases[["case_id", "split_group"]], on="case_id")[names])
    every = pd.concat(entries).astype({"fold": "Int32"})
    every = every.assign(test=every["fold"] == TEST).sort_values(["test", "committed_at", "case_id"])
    return every.drop_duplicates("split_group").set_index("split_group")["fold"]


def twins_between(cases: pd.DataFrame, one: Iterable[str], other: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of case ids, of `one` and of `other`, that share a split group, sorted; a case is its own twin.

    Each of `one` is named once, with itself or with the first of its twins. cases: rows with `case_id` and
    `split_group`; with all versions of the cases, twins by an earlier content count too.
    """
    asked, others = set(one), set(other)
    rows = sorted(zip(cases["case_id"], cases["split_group"], strict=True))
    twin = {group: case_id for case_id, group in reversed(rows) if case_id in others}
    found = {case_id: twin[group] for case_id, group in reversed(rows) if case_id in asked and group in twin}
    return sorted((case_id, case_id if case_id in others else first) for case_id, first in found.items())


def cases_per_fold(cases: pd.DataFrame) -> pd.DataFrame:
    """Return how many cases of `Tables.cases()` each data set (rows) has in each fold (columns, by name).

    All six folds are columns; then `no fold` where cases were not dealt, and `external` for those that never enter
    training.
    """
    names = cases["fold"].map(fold_name, na_action=None).astype(object).where(cases["role"] == "train", "external")
    return _all_folds(pd.crosstab(cases["dataset"], names))


def classes_per_fold(cases: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return in how many cases of each fold (columns, by name) a class (rows) is annotated and present, rarest first.

    labels: annotated ones, with `voxels`.
    """
    fold = cases[cases["role"] == "train"].set_index("case_id")["fold"]
    present = labels[(labels["voxels"] > 0) & labels["case_id"].isin(fold.index)].drop_duplicates(
        ["case_id", "class_name"]
    )
    counts = _all_folds(pd.crosstab(present["class_name"], present["case_id"].map(fold).map(fold_name)))
    return counts.drop(columns="external").loc[counts.sum(axis=1).sort_values(kind="stable").index]


def _all_folds(counts: pd.DataFrame) -> pd.DataFrame:
    folds = [fold_name(fold) for fold in range(FOLDS + 1)]
    columns = [*folds, *(["no fold"] if "no fold" in counts.columns else []), "external"]
    return counts.reindex(columns=columns, fill_value=0)


def twin_groups(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the split groups with more than one case of `Tables.cases()`, by group.

    Columns `split_group`, `fold` (by name; None: nothing of it enters training), `case_ids` (list, sorted) and
    `across_roles`: whether the group holds training and external cases, so that an evaluation on those leaks.
    """
    rows = []
    for group, members in cases.groupby("split_group", sort=True):
        if len(members) > 1:
            folds = members["fold"].dropna()
            rows.append(
                {
                    "split_group": str(group),
                    "fold": fold_name(folds.iloc[0]) if len(folds) else None,
                    "case_ids": sorted(members["case_id"]),
                    "across_roles": members["role"].nunique() > 1,
                }
            )
    return pd.DataFrame(rows, columns=["split_group", "fold", "case_ids", "across_roles"], dtype=object)
