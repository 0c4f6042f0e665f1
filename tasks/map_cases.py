"""Run one function over many cases: a plain loop, or a Dask cluster, with the same results in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tasks.progress import report_progress

Case = TypeVar("Case")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Case], Result], cases: Sequence[Case], *, dask_address: str | None = None, what: str = "cases"
) -> list[Result]:
    """Return `function(case)` for every case, in order.

    dask_address: None runs a plain loop here; "local" starts a cluster of threads in this process; anything else is
    the address of a scheduler, whose workers must see the same lake. `function` must record a bad case in its result
    and not raise for it: an exception here is a fault and ends the batch.
    """
    if dask_address is None:
        results = []
        for done, case in enumerate(cases):
            report_progress(what, done, len(cases))
            results.append(function(case))
        report_progress(what, len(cases), len(cases))
        return results
    from distributed import Client, as_completed  # heavy, and not needed by the plain loop

    options = {"processes": False, "dashboard_address": None} if dask_address == "local" else {"address": dask_address}
    with Client(**options) as client:
        futures = client.map(function, cases, pure=False)
        for done, _ in enumerate(as_completed(futures), start=1):
            report_progress(what, done, len(cases))
        gathered: list[Result] = client.gather(futures)
        return gathered
