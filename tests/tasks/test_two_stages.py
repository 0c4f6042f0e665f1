"""Two steps over many cases: the order of a plain loop, at work at the same time."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.two_stages import StageTimes, in_two_stages


@given(st.integers(0, 12), st.integers(0, 3), st.none() | st.integers(0, 11), st.none() | st.integers(0, 11))
@settings(max_examples=60, deadline=None)
def test_results_order_and_failures_are_those_of_a_plain_loop(
    count: int, waiting: int, first_fails: int | None, second_fails: int | None
) -> None:
    def first(case: int) -> int:
        if case == first_fails:
            raise KeyError(f"first {case}")
        return case * 10

    def second(case: int, between: int) -> tuple[int, int]:
        if case == second_fails:
            raise ValueError(f"second {case}")
        finished.append(case)
        return case, between

    finished: list[int] = []
    plain: list[tuple[int, int]] = []
    expected: str | None = None
    try:
        for case in range(count):
            plain.append(second(case, first(case)))
    except (KeyError, ValueError) as error:
        expected = str(error)
    committed, finished = finished, []
    found: list[tuple[int, int]] = []
    told: str | None = None
    try:
        for result in in_two_stages(first, second, range(count), waiting=waiting):
            found.append(result)
    except (KeyError, ValueError) as error:
        told = str(error)
    assert (found, told) == (plain, expected)
    assert finished == committed  # no second step ran that a plain loop would not have run


def test_the_first_step_of_a_case_runs_while_the_second_of_the_one_before_does() -> None:
    both = threading.Barrier(2, timeout=20)

    def first(case: int) -> int:
        if case == 1:
            both.wait()  # only returns once the second step of case 0 is there too
        return case

    def second(case: int, _: int) -> int:
        if case == 0:
            both.wait()
        return case

    assert list(in_two_stages(first, second, range(3))) == [0, 1, 2]


@pytest.mark.parametrize("waiting", [0, 1, 2])
def test_no_more_is_held_than_said(waiting: int) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def count(change: int) -> None:
        nonlocal held, most
        with lock:
            held += change
            most = max(most, held)

    def first(case: int) -> int:
        count(1)
        return case

    def second(case: int, _: int) -> int:
        time.sleep(0.005)
        count(-1)
        return case

    assert list(in_two_stages(first, second, range(12), waiting=waiting)) == list(range(12))
    assert most <= waiting + 2  # those that wait, the one in work, the one being made


def test_the_times_say_how_much_the_first_step_was_at_work() -> None:
    times = StageTimes()
    steps = in_two_stages(
        lambda case: time.sleep(0.03) or case, lambda case, _: time.sleep(0.02) or case, range(5), times=times
    )
    assert list(steps) == list(range(5))
    assert times.first_s >= 0.15
    assert times.second_s >= 0.1
    assert times.wall_s < times.first_s + times.second_s
    assert times.first_share is not None
    assert times.first_share <= 1
    assert StageTimes().first_share is None
