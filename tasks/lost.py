"""A case that ended the workers it was given to: what `map_cases` returns in place of a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Case = TypeVar("Case")
Result = TypeVar("Result")

TRIES = 3
"""Lost workers that one case may cost before it is given up; at the last of them nothing else was running."""

Reason = Literal["worker_lost", "out_of_memory", "timeout"]


@dataclass(frozen=True)
class Lost(Generic[Case]):
    """A case without a result: each worker that took it up was lost, the last one with nothing else running anywhere.

    found: what was seen at the last try, in words.
    """

    case: Case
    reason: Reason
    tries: int
    found: str


def require_all(results: Sequence[Result | Lost[Any]], name: Callable[[Any], str], remedy: str) -> list[Result]:
    """Return the results, in order; RuntimeError that names the first case without one, where there is any.

    name: of a case as it was handed in. remedy: what to do, in words.
    """
    lost = [item for item in results if isinstance(item, Lost)]
    if lost:
        first = lost[0]
        told = f"{name(first.case)}: {first.found} ({first.reason}, {first.tries} tries)"
        raise RuntimeError(f"{told}, and {len(lost) - 1} more; {remedy}")
    return [item for item in results if not isinstance(item, Lost)]


class RunStopped(KeyboardInterrupt):
    """The cluster was closed while the case waited or ran: the run ends, and nothing is to be tried again."""
