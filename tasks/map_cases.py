"""Run one function over many cases: a plain loop, or a Dask cluster, with the same results in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from typing import TYPE_CHECKING, TypeVar

from tasks.case_cluster import case_cluster
from tasks.lost import Lost
from tasks.progress import CaseProgress
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.dispatch import Dispatcher

Case = TypeVar("Case")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Case], Result],
    cases: Sequence[Case],
    settings: Settings,
    progress: CaseProgress | None = None,
) -> list[Result | Lost[Case]]:
    """Return `function(case)` for every case, in order.

    Without `settings.dask_address` this is a plain loop here. With it the cases run on the workers of the block's
    `case_cluster` (or of one for this call), which must see the same folders; `function` and the cases are pickled.
    progress: counts these cases among those of a run; None reports them by themselves.

    `function` must record a bad case in its result and not raise for it: an exception is a fault and ends the batch. A
    case that ends its worker, each of three times, is a `Lost` in the results instead; in a plain loop it ends all.
    """
    progress = progress or CaseProgress("cases", len(cases))
    with case_cluster(settings) as cluster:
        if cluster is None:
            return _loop(function, cases, progress)
        return _spread(cluster.dispatcher(), function, cases, progress)


def _loop(
    function: Callable[[Case], Result], cases: Sequence[Case], progress: CaseProgress
) -> list[Result | Lost[Case]]:
    results: list[Result | Lost[Case]] = []
    with progress.batch() as finished:
        for case in cases:
            results.append(function(case))
            finished(results[-1], ())
    return results


def _spread(
    dispatcher: Dispatcher, function: Callable[[Case], Result], cases: Sequence[Case], progress: CaseProgress
) -> list[Result | Lost[Case]]:
    futures = [dispatcher.submit(function, case) for case in cases]
    try:
        with progress.batch() as finished:
            for future in as_completed(futures):
                finished(future.result(), dispatcher.lost_workers)
    finally:
        for future in futures:
            future.cancel()  # those that have not begun, where another one's fault ends the batch
    return [future.result() for future in futures]
