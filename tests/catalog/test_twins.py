"""Twins: the index finds the copies and nothing else, links join groups, and the tables show one group and fold."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.splits import cases_per_fold, twin_groups
from catalog.tables import Tables
from catalog.twins import SPREAD, TwinIndex, joined_groups, profile_correlation, profile_distance
from imaging.fingerprint import FEATURES, Profile


def patient(seed: int, slices: int = 60) -> Profile:
    """Figures that wander smoothly from slice to slice around those of an abdomen."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.4, (slices, FEATURES)).cumsum(axis=0)
    middle = np.array([9.0, 2.5, 1.0, 1.8, 1.4, 1.7, 1.4, 1.2, 0.6, 0.4])
    return (middle + (rng.normal(0, 1, FEATURES) + steps) * SPREAD).astype(np.float32)


@pytest.fixture(scope="module")
def index() -> TwinIndex:
    known = TwinIndex()
    for seed in range(300):
        known.put(f"case {seed}", patient(seed, 40 + seed % 50))
    return known


@pytest.mark.parametrize("seed", [0, 17, 299])
@pytest.mark.parametrize(
    ("change", "backwards"),
    [
        (slice(None), False),
        (slice(None, None, -1), True),
        (slice(12, -5), False),
        (slice(-3, 14, -1), True),
    ],
)
def test_a_copy_is_found_however_it_was_cropped_or_turned(
    index: TwinIndex, seed: int, change: slice, backwards: bool
) -> None:
    whole = patient(seed, 40 + seed % 50)
    noise = np.random.default_rng(1).normal(0, 0.1, whole[change].shape) * SPREAD
    found = index.find((whole[change] + noise).astype(np.float32))
    assert [(match.name, match.step) for match in found] == [(f"case {seed}", -1 if backwards else 1)]
    assert 0 < found[0].distance < 0.2


def test_others_are_not_found(index: TwinIndex) -> None:
    assert [index.find(patient(seed)) for seed in range(1000, 1020)] == [[]] * 20


def test_a_copy_that_shares_less_than_half_is_not_claimed() -> None:
    known = TwinIndex()
    whole = patient(1, 80)
    known.put("a", whole[:50])
    assert [match.name for match in known.find(whole[24:])] == ["a"]
    assert known.find(whole[27:]) == []


def test_a_name_put_again_stands_for_its_last_profile() -> None:
    known = TwinIndex()
    known.put("a", patient(1))
    known.put("a", patient(2))
    assert known.find(patient(1)) == []
    assert [match.name for match in known.find(patient(2))] == ["a"]
    known.put("a", None)
    assert known.find(patient(2)) == []
    assert TwinIndex().find(patient(2)) == []


def test_distance_is_counted_in_spreads_and_forgives_one_bad_slice() -> None:
    one = patient(1)
    assert profile_distance(one, one) == 0
    drift = np.linspace(0, 2, len(one), dtype=np.float32)[:, None] * SPREAD  # its median, 1, says nothing of the size
    assert profile_distance(one, one + drift) == pytest.approx((0.5 + 9 * 1) / 10, rel=0.02)
    assert profile_distance(one, one + drift, levels=False) == pytest.approx(0.5, rel=0.02)
    spoilt = one.copy()
    spoilt[7] += 5 * SPREAD
    assert profile_distance(one, spoilt) == 0
    half = one.copy()
    half[::2] = 0
    assert profile_distance(one, half) == float("inf")


def test_a_body_of_the_same_build_that_runs_otherwise_along_the_scan_is_another() -> None:
    one, other = (
        (patient(1).mean(axis=0) + 0.2 * SPREAD * np.random.default_rng(seed).normal(0, 1, (40, FEATURES))).astype(
            np.float32
        )
        for seed in (1, 2)
    )
    assert profile_distance(one, other) < 0.3
    assert profile_correlation(one, one) == pytest.approx(1, abs=1e-5)
    assert abs(profile_correlation(one, other)) < 0.3
    assert profile_correlation(np.ones((9, FEATURES), np.float32), one[:9]) == 0
    known = TwinIndex()
    known.put("a", one)
    assert known.find(other) == []
    assert len(known.find(one)) == 1


PAIRS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=12)


@given(PAIRS, st.randoms())
def test_links_lead_to_the_smallest_group_in_any_order(pairs: list[tuple[str, str]], random: Random) -> None:
    joined = joined_groups(pairs)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert joined_groups(shuffled) == joined
    assert all(joined[one] == joined[other] <= min(one, other) for one, other in pairs)
    assert all(joined[name] == name for name in joined.values())


def link(one: str, other: str) -> dict[str, Any]:
    return {"group_a": one, "group_b": other, "how": "content", "case_a": "x/1", "case_b": "y/1", "distance": 0.1}


def test_a_link_gives_two_older_groups_one_name_and_one_fold(tables: Tables, case_row: Any) -> None:
    tables.commit_case(case_row("kits", "a", split_group="g2", fold=3))
    tables.commit_case(case_row("lits", "b", split_group="g1", fold=1))
    tables.commit_case(case_row("lits", "c", split_group="g9", fold=1))
    before = tables.versions()
    assert tables.link_twins([link("g1", "g3"), link("g2", "g3")]) == 2
    assert tables.link_twins([link("g1", "g3")]) == 0
    tables.commit_case(case_row("msd", "n", split_group="g3", fold=4))
    shown = tables.cases().set_index("case_id")[["split_group", "fold"]]
    assert shown.values.tolist() == [["g1", 3], ["g1", 3], ["g9", 1], ["g1", 3]]
    assert tables.cases(dataset="lits", fold=3)["case_id"].tolist() == ["lits/b"]
    assert tables.group_members("g2") == tables.group_members("g1") == ["kits/a", "lits/b", "msd/n"]
    earlier = tables.cases(at_versions=before).set_index("case_id")[["split_group", "fold"]]
    assert earlier.values.tolist() == [["g2", 3], ["g1", 1], ["g9", 1]]


def test_fingerprints_are_read_for_the_revision_asked_for(tables: Tables, case_row: Any) -> None:
    tables.commit_case(case_row("kits", "a", fingerprint="AQ=="))
    tables.commit_case(case_row("kits", "b"))
    assert tables.fingerprints({"kits/a": 1, "kits/b": 1}) == {"kits/a": "AQ=="}
    assert tables.fingerprints({"kits/a": 2}) == {}
    assert "fingerprint" not in tables.cases()


def test_summaries_of_the_split() -> None:
    cases = pd.DataFrame(
        {
            "case_id": ["a/1", "a/2", "b/1", "b/2", "c/1"],
            "dataset": ["a", "a", "b", "b", "c"],
            "split_group": ["g", "h", "g", "g", "h"],
            "fold": pd.array([0, 5, 0, 0, None], dtype="Int32"),
            "role": ["train"] * 4 + ["external"],
        }
    )
    folds = cases_per_fold(cases)
    assert list(folds.columns) == ["fold 0", "fold 1", "fold 2", "fold 3", "fold 4", "test", "external"]
    assert folds[["fold 0", "fold 2", "test", "external"]].values.tolist() == [[1, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 1]]
    assert twin_groups(cases).values.tolist() == [
        ["g", "fold 0", ["a/1", "b/1", "b/2"], False],
        ["h", "test", ["a/2", "c/1"], True],
    ]
    assert twin_groups(cases[:1]).empty
    assert cases_per_fold(cases[:0]).empty
