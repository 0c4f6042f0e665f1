"""How a plain function becomes a Prefect task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def as_task(
    function: Callable[Parameters, Result],
    name: str,
    *,
    retries: int = 0,
    retry_delay_seconds: float = 0,
    tags: Sequence[str] = (),
) -> Task[Parameters, Result]:
    """Return `function` as a Prefect task; the function itself stays callable without Prefect.

    Prefect's result cache is off: its key holds the run's id, so what is done already is known by our tables instead.
    """
    return task(name=name, retries=retries, retry_delay_seconds=retry_delay_seconds, tags=tags, cache_policy=NO_CACHE)(
        function
    )
