from __future__ import annotations

import pytest

from tasks.map_cases import map_cases
from tasks.progress import listening


def _square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("dask_address", [None, "local"])
def test_results_come_back_in_order(dask_address: str | None) -> None:
    assert map_cases(_square, [3, 1, 2], dask_address=dask_address) == [9, 1, 4]


def test_progress_is_reported_to_listeners_only_inside_the_block() -> None:
    seen: list[tuple[str, int, int]] = []
    with listening(lambda what, done, total, _note: seen.append((what, done, total))):
        map_cases(_square, [5, 6], what="squares")
    map_cases(_square, [5, 6], what="squares")
    assert seen == [("squares", 0, 2), ("squares", 1, 2), ("squares", 2, 2)]


def test_a_fault_is_raised_and_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        map_cases(lambda number: 1 // number, [1, 0])
