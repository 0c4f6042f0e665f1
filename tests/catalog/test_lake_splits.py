"""Folds: even over data sets and rare classes, whole groups, the same in any order, and never moved."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.splits import (
    FOLDS,
    TEST,
    classes_per_fold,
    deal,
    fold_name,
    group_attributes,
    settled_folds,
    twins_between,
)
from catalog.tables import Tables

CLASSES = ("class liver", "class pancreas_tumor", "class colon_tumor", "class spleen")
ATTRIBUTES = st.builds(
    lambda dataset, classes, cases: Counter(
        {"cases": cases, f"data set {dataset}": cases, **dict.fromkeys(classes, cases)}
    ),
    st.sampled_from("abc"),
    st.sets(st.sampled_from(CLASSES)),
    st.integers(1, 2),
)
GROUPS = st.dictionaries(st.text("abc012", min_size=1, max_size=5), ATTRIBUTES, max_size=40)


@given(GROUPS, st.randoms())
def test_every_group_gets_one_fold_the_same_in_any_order(groups: dict[str, Counter[str]], random: Random) -> None:
    folds = deal(groups)
    assert set(folds) == set(groups)
    assert set(folds.values()) <= set(range(FOLDS + 1))
    shuffled = list(groups)
    random.shuffle(shuffled)
    assert deal({name: groups[name] for name in shuffled}) == folds


@given(GROUPS, GROUPS)
def test_cases_that_are_added_move_no_other(first: dict[str, Counter[str]], more: dict[str, Counter[str]]) -> None:
    before = deal(first)
    added = deal({**more, **first}, before)
    assert added.keys() == more.keys() - first.keys()


@given(st.lists(st.sampled_from("abcd"), max_size=60))
def test_each_data_set_is_spread_to_within_one_case(datasets: list[str]) -> None:
    groups = {f"g{n}": Counter({"cases": 1, f"data set {name}": 1}) for n, name in enumerate(datasets)}
    folds = deal(groups)
    for name, cases in Counter(datasets).items():
        sizes = Counter(folds[f"g{n}"] for n, dataset in enumerate(datasets) if dataset == name)
        counts = [sizes[fold] for fold in range(FOLDS + 1)]
        assert max(counts) - min(counts) <= 1
        assert cases < 2 or (sizes[TEST] and cases > sizes[TEST])  # held-out and training cases


@given(GROUPS.filter(lambda groups: len(groups) >= 12), st.integers(0, 2**32))
def test_classes_are_spread_better_than_by_chance(groups: dict[str, Counter[str]], seed: int) -> None:
    def unevenness(folds: dict[str, int]) -> float:
        total = 0.0
        for name in CLASSES:
            sizes = Counter[int]()
            for group, fold in folds.items():
                sizes[fold] += groups[group][name]
            mean = sum(sizes.values()) / (FOLDS + 1)
            total += sum((sizes[fold] - mean) ** 2 for fold in range(FOLDS + 1))
        return total

    random = Random(seed)
    by_chance = [{group: random.randrange(FOLDS + 1) for group in groups} for _ in range(20)]
    assert unevenness(deal(groups)) <= sum(map(unevenness, by_chance)) / len(by_chance)


def test_a_rare_class_is_in_every_fold() -> None:
    """Seven of 90 cases have a tumour, all in one data set of three; each fold gets one, and one fold a second."""
    groups = {
        f"g{n}": Counter(
            {"cases": 1, f"data set {n % 3}": 1, "class liver": 1, **({"class t": 1} if n < 21 and n % 3 == 0 else {})}
        )
        for n in range(90)
    }
    folds = deal(groups)
    assert sorted(Counter(folds[name] for name in groups if groups[name]["class t"]).values()) == [1, 1, 1, 1, 1, 2]
    for dataset in range(3):
        sizes = Counter(folds[name] for name in groups if groups[name][f"data set {dataset}"])
        assert max(sizes.values()) - min(sizes.values()) <= 1


def test_two_cases_of_a_set_lie_in_training_and_test_and_one_in_training() -> None:
    pair = {name: Counter({"cases": 1, "data set a": 1, f"class {name}": 1}) for name in ("g", "h")}
    assert Counter(fold == TEST for fold in deal(pair).values()) == {True: 1, False: 1}
    assert deal({"g": pair["g"]}) == {"g": 0}
    assert deal(pair, {"g": TEST})["h"] != TEST
    assert deal({}) == {}


def frame(rows: list[dict[str, Any]], **columns: Any) -> pd.DataFrame:
    made = pd.DataFrame(rows).assign(**columns)
    return made.astype({"fold": "Int32"}) if "fold" in made else made


def test_attributes_count_data_sets_with_labels_and_classes_that_are_there() -> None:
    cases = frame(
        [
            {"case_id": "a/1", "dataset": "a", "split_group": "g"},
            {"case_id": "b/1", "dataset": "b", "split_group": "g"},
            {"case_id": "b/2", "dataset": "b", "split_group": "h"},
        ]
    )
    labels = frame(
        [
            {"case_id": "a/1", "class_name": "liver", "voxels": 9},
            {"case_id": "a/1", "class_name": "spleen", "voxels": 0},
            {"case_id": "b/1", "class_name": "liver", "voxels": 4},
        ]
    )
    assert group_attributes(cases, labels) == {
        "g": {"cases": 2, "data set a": 1, "data set b": 1, "class liver": 2},
        "h": {"cases": 1, "unlabelled cases of b": 1},
    }


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


def settled(cases: list[dict[str, Any]], dealt: list[dict[str, Any]], joined: dict[str, str]) -> dict[str, int]:
    every = frame(cases, role="train", committed_at=day(1), schema_version=4)
    rows = frame(dealt) if dealt else pd.DataFrame(columns=["case_id", "split_group", "fold", "committed_at"])
    return settled_folds(every, rows, joined).to_dict()


def test_a_case_keeps_its_fold_under_another_content_and_its_twins_share_it() -> None:
    cases = [
        {"case_id": "a/1", "split_group": "new", "fold": None},
        {"case_id": "b/1", "split_group": "g", "fold": None},
        {"case_id": "c/1", "split_group": "h", "fold": None},
    ]
    dealt = [{"case_id": "a/1", "split_group": "old", "fold": 2, "committed_at": day(2)}]
    assert settled(cases, dealt, {}) == {"old": 2, "new": 2}
    assert settled(cases, dealt, {"old": "g", "g": "g"}) == {"g": 2, "new": 2}


def test_twins_found_late_leave_the_test_and_take_the_fold_dealt_first() -> None:
    cases = [{"case_id": f"a/{n}", "split_group": "g", "fold": None} for n in range(3)]
    dealt = [
        {"case_id": "a/0", "split_group": "g", "fold": TEST, "committed_at": day(1)},
        {"case_id": "a/1", "split_group": "h", "fold": 3, "committed_at": day(3)},
        {"case_id": "a/2", "split_group": "i", "fold": 1, "committed_at": day(2)},
    ]
    assert settled(cases, dealt, {"g": "g", "h": "g", "i": "g"}) == {"g": 1}
    assert settled(cases, dealt[:1], {}) == {"g": TEST}


def test_folds_that_older_versions_wrote_hold_and_their_test_fold_is_the_test() -> None:
    cases = frame(
        [
            {"case_id": "a/1", "split_group": "g", "fold": 0, "schema_version": 2},
            {"case_id": "a/2", "split_group": "h", "fold": 3, "schema_version": 2},
            {"case_id": "a/3", "split_group": "i", "fold": None, "schema_version": 4},
        ],
        role="train",
        committed_at=day(1),
    )
    none = pd.DataFrame(columns=["case_id", "split_group", "fold", "committed_at"])
    assert settled_folds(cases, none, {}).to_dict() == {"g": TEST, "h": 3}


def test_a_case_is_dealt_once(tables: Tables, case_row: Any) -> None:
    tables.commit_case(case_row("kits", "a", split_group="g", fold=None))
    tables.commit_case(case_row("kits", "b", split_group="h", fold=None))
    assert tables.cases()["fold"].isna().all()
    before = tables.versions()
    row = {"case_id": "kits/a", "split_group": "g", "fold": TEST}
    assert tables.deal_folds([row]) == 1
    assert tables.deal_folds([{**row, "fold": 0}, {"case_id": "kits/b", "split_group": "h", "fold": 0}]) == 1
    assert tables.deal_folds([]) == 0
    assert tables.cases()["fold"].tolist() == [TEST, 0]
    assert tables.cases(fold=TEST)["case_id"].tolist() == ["kits/a"]
    assert tables.cases(at_versions=before)["fold"].isna().all()
    tables.commit_case(case_row("lits", "c", split_group="g", fold=None))  # a twin that comes later
    assert tables.cases(dataset="lits")["fold"].tolist() == [TEST]


def test_cases_that_share_a_scan_with_others_are_named_in_pairs() -> None:
    cases = frame(
        [
            {"case_id": "lits/1", "split_group": "g"},
            {"case_id": "lits/2", "split_group": "h"},
            {"case_id": "ircad/1", "split_group": "g"},
            {"case_id": "ircad/2", "split_group": "i"},
        ]
    )
    assert twins_between(cases, ["ircad/1", "ircad/2"], ["lits/2", "lits/1"]) == [("ircad/1", "lits/1")]
    assert twins_between(cases, ["lits/1", "lits/2"], ["ircad/1", "lits/1"]) == [("lits/1", "lits/1")]
    assert twins_between(cases, ["ircad/1"], ["lits/2", "gone/1"]) == []


def test_classes_are_counted_per_fold_rarest_first() -> None:
    cases = frame(
        [
            {"case_id": "a/1", "fold": 0, "role": "train"},
            {"case_id": "a/2", "fold": TEST, "role": "train"},
            {"case_id": "x/1", "fold": None, "role": "external"},
        ]
    )
    labels = frame(
        [
            {"case_id": case, "class_name": name, "voxels": voxels}
            for case, name, voxels in [
                ("a/1", "liver", 5), ("a/2", "liver", 5), ("a/2", "spleen", 1), ("a/1", "spleen", 0),
                ("x/1", "spleen", 1),
            ]
        ]
    )  # fmt: skip
    counts = classes_per_fold(cases, labels)
    assert counts.index.tolist() == ["spleen", "liver"]
    assert counts[["fold 0", "fold 4", "test"]].values.tolist() == [[0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize(("fold", "name"), [(0, "fold 0"), (TEST, "test"), (None, "no fold"), (pd.NA, "no fold")])
def test_folds_have_names(fold: Any, name: str) -> None:
    assert fold_name(fold) == name
