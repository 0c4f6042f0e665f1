"""Which cases a training learns from and which an evaluation scores: the split, asked for and held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import pandas as pd

from catalog.splits import FOLDS, TEST, deal, fold_name, group_attributes, twins_between
from datasets_registry.cards import list_cards, load_card
from tasks.twins import search_twins
from tasks.workspace import Workspace

SplitName = Literal["default", "official"]
SPLITS: tuple[SplitName, ...] = ("default", "official")
SHOWN_PAIRS = 20
"""Pairs that a refusal lists; `ctfactory splits show` lists all."""

TRAINING, HELD_OUT, ASIDE, EXTERNAL, NO_FOLD = "training", "held out", "aside", "external", "no fold"
"""What a split makes of a case; aside: neither learnt from nor scored."""


class LeakRefused(ValueError):
    """A request for cases that would let training see what is evaluated; pairs: (case asked for, the other)."""

    def __init__(self, message: str, pairs: Sequence[tuple[str, str]]) -> None:
        listed = [one if one == other else f"{one} = {other}" for one, other in pairs[:SHOWN_PAIRS]]
        more = [f"and {len(pairs) - SHOWN_PAIRS} more"] if len(pairs) > SHOWN_PAIRS else []
        super().__init__("\n  ".join([message, *listed, *more]))
        self.pairs = tuple(pairs)


@dataclass(frozen=True)
class SplitChoice:
    """What a training or an evaluation asks for.

    split: `default`, the folds of the lake; `official`, where a card states one, the default for other sets.
    fold: hold out this fold of the default split instead of the test. only: these cases, whatever fold they are in.
    drop_leaking: leave out the cases asked for that would leak, instead of refusing.
    """

    split: SplitName = "default"
    fold: int | None = None
    only: tuple[str, ...] | None = None
    drop_leaking: bool = False

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r}: expected {' or '.join(SPLITS)}")
        if self.fold is not None and not 0 <= self.fold < FOLDS:
            raise ValueError(f"fold {self.fold}: expected 0 to {FOLDS - 1}; without a fold the test is held out")
        if self.fold is not None and (self.split == "official" or self.only is not None):
            raise ValueError("a fold is one of the default split: leave out either the fold, or the other choice")

    @property
    def held_out_name(self) -> str:
        """What is held out, in words: `test`, `fold 2`, `official`."""
        return "official" if self.split == "official" else fold_name(TEST if self.fold is None else self.fold)


def read_case_list(file: Path) -> tuple[str, ...]:
    """Return the case ids of a text file, one a line; blank lines and lines that begin with # do not count.

    Raises ValueError for a file without a case.
    """
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    cases = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not cases:
        raise ValueError(f"{file}: no case in it, expected one id a line, such as kits/00003")
    return cases


def plan_folds(workspace: Workspace) -> list[dict[str, object]]:
    """Return the rows of the table `splits` that cases without a fold would get: now, if they were dealt."""
    cases = workspace.tables.cases(role="train")
    waiting = cases[cases["fold"].isna()]
    if waiting.empty:
        return []
    labels = workspace.tables.labels(state="annotated", columns=["class_name", "voxels"])
    dealt = cases[cases["fold"].notna()].drop_duplicates("split_group")
    known = dict(zip(dealt["split_group"], dealt["fold"].astype(int), strict=True))
    folds = deal(group_attributes(cases, labels[labels["case_id"].isin(cases["case_id"])]), known)
    return [
        {"case_id": case_id, "split_group": group, "fold": folds[group]}
        for case_id, group in zip(waiting["case_id"], waiting["split_group"], strict=True)
    ]


def deal_new_cases(workspace: Workspace) -> int:
    """Give every training case without a fold one, for good; return how many that were.

    Training and evaluation begin with this, so that nobody trains on a case that has no place yet. Twins are looked for
    once more: this is the last moment at which one that an ingest missed, when it was killed, can still come to lie in
    the fold of the other.
    """
    if plan_folds(workspace):
        search_twins(workspace.tables)
    return workspace.tables.deal_folds(plan_folds(workspace))


def sides(cases: pd.DataFrame, choice: SplitChoice) -> pd.Series:
    """Return what the split makes of each case: `training`, `held out`, `aside`, `external` or `no fold`.

    cases: rows of `Tables.cases()`.
    """
    held_out = TEST if choice.fold is None else choice.fold
    found = []
    for dataset, native_id, fold, role in zip(
        cases["dataset"], cases["native_id"], cases["fold"], cases["role"], strict=True
    ):
        official = _official_sides(dataset) if choice.split == "official" else None
        if role != "train":
            found.append(EXTERNAL)
        elif official is not None:
            found.append(official[0].get(native_id, official[1]))
        elif pd.isna(fold):
            found.append(NO_FOLD)
        else:
            found.append(HELD_OUT if fold == held_out else ASIDE if fold == TEST else TRAINING)
    return pd.Series(found, index=cases.index, dtype=object)


@cache
def _official_sides(dataset: str) -> tuple[dict[str, str], str] | None:
    """Return native id -> side by the set's own split, and the side of ids it does not name; None: it has none.

    Scored is its test part, or its val part where it has no test; the other is set aside.
    """
    parts = load_card(dataset).official_splits if dataset in list_cards() else {}
    if not parts:
        return None
    scored = "test" if parts.get("test") else "val"
    side = {"train": TRAINING, "val": ASIDE, "test": ASIDE, scored: HELD_OUT}
    named = {native_id: side[part] for part, ids in parts.items() for native_id in ids}
    return named, ASIDE if "train" in parts else TRAINING


def official_datasets(datasets: Iterable[str]) -> list[str]:
    """Return those of the data sets that state a split of their own, sorted."""
    return sorted(dataset for dataset in set(datasets) if _official_sides(dataset) is not None)


def leaking_pairs(cases: pd.DataFrame, choice: SplitChoice) -> list[tuple[str, str]]:
    """Return (training case, held-out case) for every training case of the split that shows a held-out scan."""
    side = sides(cases, choice)
    ids = cases["case_id"]
    return twins_between(cases, ids[side == TRAINING], ids[side.isin([HELD_OUT, ASIDE])])


def cases_to_train_on(
    workspace: Workspace,
    choice: SplitChoice,
    datasets: Sequence[str] | None = None,
    at_versions: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Return the `cases` rows that a training may learn from, by the split asked for; external cohorts never.

    datasets: restrict to these. at_versions: of the tables, as an earlier run read them; default now. Raises
    LookupError for data sets or cases that are not there, and LeakRefused when a case is held out or the twin of one
    that is (with `drop_leaking` such cases are left out).
    """
    every = workspace.tables.cases(at_versions=at_versions)
    side, ids = sides(every, choice), every["case_id"]
    held_out = ids[side.isin([HELD_OUT, ASIDE])]
    if choice.only is None:
        chosen = every[side == TRAINING]
    else:
        chosen = _listed(every, choice.only)
        # The twin of an external case may be learnt from: it is evaluating on that case which is refused.
        held_out = pd.concat([held_out, chosen["case_id"][side == EXTERNAL]])
    if datasets is not None:
        there = set(every[every["role"] == "train"]["dataset"])
        if unknown := sorted(set(datasets) - there):
            raise LookupError(f"data sets {unknown} have no training case in the lake; it holds {sorted(there)}")
        chosen = chosen[chosen["dataset"].isin(list(datasets))]
    pairs = twins_between(every, chosen["case_id"], held_out)
    if pairs and not choice.drop_leaking:
        raise LeakRefused(
            f"training would leak: {len(pairs)} of these {len(chosen)} cases are kept from training (held out, set "
            f"aside or external), or show the scan of one; leave them out with --drop-leaking, or choose others",
            pairs,
        )
    return chosen[~chosen["case_id"].isin([one for one, _ in pairs])]


@dataclass(frozen=True, eq=False)
class ScoringCases:
    """The `cases` rows that an evaluation may use, and the ids of those left out because training saw their scan."""

    cases: pd.DataFrame
    dropped: tuple[str, ...]


def cases_to_score(
    workspace: Workspace, choice: SplitChoice, cohorts: Sequence[str] | None, trained_on: Sequence[str]
) -> pd.DataFrame:
    """Return the cases of `choose_scoring_cases`."""
    return choose_scoring_cases(workspace, choice, cohorts, trained_on).cases


def choose_scoring_cases(
    workspace: Workspace, choice: SplitChoice, cohorts: Sequence[str] | None, trained_on: Sequence[str]
) -> ScoringCases:
    """Return the `cases` rows that an evaluation may use, sorted by case: those with a human label.

    Of training sets what the split holds out, of external cohorts every case. cohorts: restrict to these data sets;
    None takes every training set. trained_on: ids of the model's training cases, `lits/*` for all of a set. Raises
    LookupError when nothing is left, and LeakRefused when a case, or its twin, was trained on (with `drop_leaking` such
    cases are left out).
    """
    every = workspace.tables.cases()
    side = sides(every, choice)
    if choice.only is not None:
        wanted = _listed(every, choice.only)
    else:
        wanted = every[(side == HELD_OUT) | ((side == EXTERNAL) & (cohorts is not None))]
    if cohorts is not None:
        wanted = wanted[wanted["dataset"].isin(list(cohorts))]
    labels = workspace.tables.labels(case_ids=wanted["case_id"], state="annotated", columns=["class_name"])
    wanted = wanted[wanted["case_id"].isin(labels["case_id"])]
    pairs = seen_in_training(workspace, wanted["case_id"], trained_on)
    if pairs and not choice.drop_leaking:
        raise LeakRefused(
            f"the model was trained on {len(pairs)} of these {len(wanted)} cases, or on scans they show again; leave "
            "them out with --drop-leaking, or evaluate on cases it has not seen",
            pairs,
        )
    wanted = wanted[~wanted["case_id"].isin([one for one, _ in pairs])]
    if wanted.empty:
        dropped = f" ({len(pairs)} left out, for the model was trained on them)" if pairs else ""
        raise LookupError(
            f"no held-out case with a human label in {list(cohorts or ['the training sets'])}, held out: "
            f"{choice.held_out_name}{dropped}; the lake holds {sorted(set(every['dataset']))}"
        )
    return ScoringCases(wanted.sort_values("case_id"), tuple(sorted({one for one, _ in pairs})))


def seen_in_training(workspace: Workspace, case_ids: Iterable[str], trained_on: Sequence[str]) -> list[tuple[str, str]]:
    """Return (case, the case trained on) for each of `case_ids` that a model has seen, itself or as a twin.

    trained_on: ids of the model's training cases, `lits/*` for all of a set.
    """
    # The model may have seen an earlier version of a case, or one that was withdrawn since.
    known = workspace.tables.cases(columns=["split_group"], history=True)
    whole_sets = {name.removesuffix("/*") for name in trained_on if name.endswith("/*")}
    of_sets = known["case_id"][known["case_id"].str.partition("/")[0].isin(whole_sets)]
    return twins_between(known, case_ids, {*trained_on, *of_sets})


def _listed(every: pd.DataFrame, only: Sequence[str]) -> pd.DataFrame:
    if missing := sorted(set(only) - set(every["case_id"])):
        raise LookupError(
            f"{len(missing)} of the {len(only)} cases listed are not in the lake: {', '.join(missing[:5])}; "
            "see `ctfactory catalog query`, or ingest them first"
        )
    return every[every["case_id"].isin(list(only))]
