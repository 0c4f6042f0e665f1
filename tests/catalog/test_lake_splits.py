"""Folds: even, stable, whole groups."""

from __future__ import annotations

from collections import Counter
from random import Random

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from catalog.splits import assign_folds, group_folds, shared_groups

IDS = st.lists(st.text("abc012", min_size=1, max_size=4), unique=True, max_size=30)


@given(IDS, st.randoms())
def test_folds_are_even_and_do_not_follow_the_order_of_the_files(ids: list[str], random: Random) -> None:
    folds = assign_folds("kits", ids)
    shuffled = list(ids)
    random.shuffle(shuffled)
    assert assign_folds("kits", shuffled) == folds
    sizes = Counter(folds.values())
    assert max(sizes.values(), default=0) - min((sizes[fold] for fold in range(5)), default=0) <= 1


def test_folds_are_the_ones_of_every_earlier_day() -> None:
    expected = {"case_00000": 4, "case_00001": 0, "case_00002": 3, "case_00003": 1, "case_00004": 0, "case_00005": 2}
    assert assign_folds("kits", [f"case_{n:05d}" for n in range(6)]) == expected


@given(IDS, IDS)
def test_given_folds_are_kept_when_cases_are_added(first: list[str], more: list[str]) -> None:
    before = assign_folds("kits", first)
    after = assign_folds("kits", [*first, *(name for name in more if name not in before)], existing=before)
    assert {name: after[name] for name in first} == before


@given(IDS, st.data())
def test_an_interrupted_ingest_goes_on_with_the_folds_it_would_have_given(ids: list[str], data: st.DataObject) -> None:
    whole = assign_folds("kits", ids)
    done = data.draw(st.lists(st.sampled_from(ids), unique=True)) if ids else []
    assert assign_folds("kits", ids, existing={name: whole[name] for name in done}) == whole


@given(st.dictionaries(st.text("abc", min_size=1), st.sampled_from("xyz"), min_size=1), st.integers(0, 4))
def test_a_group_never_straddles_folds(groups: dict[str, str], fold: int) -> None:
    folds = assign_folds("kits", list(groups), existing={"x": fold}, groups=groups)
    for group in set(groups.values()):
        assert len({folds[name] for name in groups if groups[name] == group}) == 1
    assert all(folds[name] == fold for name in groups if groups[name] == "x")


def test_cases_that_leak_into_an_evaluation_are_found() -> None:
    cases = pd.DataFrame(
        {
            "case_id": ["lits/1", "lits/2", "ircad/1", "ircad/2"],
            "dataset": ["lits", "lits", "ircad", "ircad"],
            "split_group": ["g", "h", "g", "i"],
            "fold": pd.array([0, 1, None, None], dtype="Int32"),
        }
    )
    shared = shared_groups(cases, ["lits/1", "lits/2"])
    assert shared[["case_id", "twin"]].values.tolist() == [["ircad/1", "lits/1"]]
    assert shared_groups(cases, ["lits/2"]).empty
    assert group_folds(cases) == {"g": 0, "h": 1}
