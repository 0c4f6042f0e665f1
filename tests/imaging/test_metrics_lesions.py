"""Lesions found, missed and made up, on volumes small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imaging.metrics import match_lesions

SPACING = (1.0, 2.0, 5.0)  # 0.01 ml a voxel
SHAPE = (20, 8, 6)


def rods(*spans: tuple[int, int]) -> NDArray[np.bool_]:
    """Return rods along x, one voxel thick, from first to last (exclusive)."""
    mask = np.zeros(SHAPE, dtype=bool)
    for first, last in spans:
        mask[first:last, 3, 2] = True
    return mask


def test_found_missed_and_false() -> None:
    matches = match_lesions(rods((0, 4), (8, 10)), rods((2, 6), (14, 17)), SPACING)
    assert [(lesion.ml, lesion.found, lesion.covered, lesion.matches) for lesion in matches.truth] == [
        (pytest.approx(0.04), True, 0.5, (0,)),
        (pytest.approx(0.02), False, 0.0, ()),
    ]
    assert [(lesion.ml, lesion.false_positive, lesion.matches) for lesion in matches.predicted] == [
        (pytest.approx(0.04), False, (0,)),
        (pytest.approx(0.03), True, ()),
    ]
    assert (matches.lesions, matches.lesions_found, matches.false_lesions) == (2, 1, 1)


def test_one_predicted_lesion_over_two_finds_both_and_is_one() -> None:
    matches = match_lesions(rods((0, 4), (6, 10)), rods((2, 8)), SPACING)
    assert (matches.lesions, matches.lesions_found, matches.false_lesions, len(matches.predicted)) == (2, 2, 0, 1)
    assert matches.predicted[0].matches == (0, 1)


def test_two_predicted_lesions_on_one_find_it_together() -> None:
    truth, predicted = rods((0, 10)), rods((0, 3), (5, 8))
    matches = match_lesions(truth, predicted, SPACING, min_overlap=0.6)
    assert (matches.lesions, matches.lesions_found, matches.false_lesions) == (1, 1, 0)
    assert (matches.truth[0].covered, matches.truth[0].matches) == (pytest.approx(0.6), (0, 1))


def test_too_little_overlap_is_a_miss_and_a_false_lesion() -> None:
    matches = match_lesions(rods((0, 10)), rods((9, 14)), SPACING, min_overlap=0.2)
    assert (matches.lesions_found, matches.false_lesions) == (0, 1)
    assert match_lesions(rods((0, 10)), rods((9, 14)), SPACING, min_overlap=0.1).lesions_found == 1


def test_lesions_too_small_are_neither_missed_nor_false() -> None:
    # 0.02 ml is the least: of the truth the second is too small, of the prediction the third
    matches = match_lesions(rods((0, 2), (5, 6)), rods((5, 8), (10, 11)), SPACING, min_ml=0.02)
    assert (matches.lesions, matches.lesions_found) == (1, 0)
    assert [lesion.false_positive for lesion in matches.predicted] == [False]  # it lies on the small one
    # a predicted fragment that is too small covers nothing
    assert match_lesions(rods((0, 4)), rods((0, 1)), SPACING, min_ml=0.02).lesions_found == 0


def test_a_prediction_on_what_is_accepted_is_not_false() -> None:
    predicted, accepted = rods((0, 3), (10, 13)), rods((12, 13))
    matches = match_lesions(rods(), predicted, SPACING, accepted=accepted)
    assert [lesion.false_positive for lesion in matches.predicted] == [True, False]
    assert matches.lesions == 0


def test_parts_that_meet_at_a_corner_are_one_lesion() -> None:
    truth = np.zeros(SHAPE, dtype=bool)
    truth[1, 1, 1] = truth[2, 2, 2] = True
    assert match_lesions(truth, truth, SPACING).lesions == 1


def test_a_lesion_scores_its_highest_probability() -> None:
    score = np.zeros(SHAPE, dtype=np.float32)
    score[2, 3, 2], score[11, 3, 2], score[18, 3, 2] = 0.5, 0.75, 1.0  # the last lies outside both
    matches = match_lesions(rods((0, 4)), rods((1, 5), (10, 13)), SPACING, score)
    assert [lesion.score for lesion in matches.predicted] == [0.5, 0.75]
    assert matches.lesion_score == 0.75
    assert math.isnan(match_lesions(rods((0, 4)), rods((1, 5)), SPACING).lesion_score)


def test_without_a_lesion_there_is_nothing_to_find_and_the_score_is_0() -> None:
    matches = match_lesions(rods(), rods(), SPACING)
    assert (matches.lesions, matches.lesions_found, matches.false_lesions, matches.lesion_score) == (0, 0, 0, 0.0)
    assert match_lesions(rods((0, 2)), rods(), SPACING).truth[0].found is False
    assert match_lesions(rods(), rods((0, 2)), SPACING).false_lesions == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_mask_finds_itself_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask, other = rng.random((2, 9, 8, 7)) < 0.08
    matches = match_lesions(mask, mask, SPACING)
    assert matches.lesions_found == matches.lesions == len(matches.predicted)
    assert [lesion.matches for lesion in matches.truth] == [(index,) for index in range(matches.lesions)]
    # what one side touches, the other is touched by
    matches = match_lesions(mask, other, SPACING)
    pairs = {(t, p) for t, lesion in enumerate(matches.truth) for p in lesion.matches}
    assert pairs == {(t, p) for p, lesion in enumerate(matches.predicted) for t in lesion.matches}
    assert matches.lesions_found == sum(bool(lesion.matches) for lesion in matches.truth)
    assert matches.false_lesions == sum(not lesion.matches for lesion in matches.predicted)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"score of shape \(2, 2, 2\)"):
        match_lesions(rods(), rods(), SPACING, np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"min_overlap 1\.5"):
        match_lesions(rods(), rods(), SPACING, min_overlap=1.5)
