"""A case that ended the workers it was given to: what `map_cases` returns in place of a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Case = TypeVar("Case")

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


class RunStopped(KeyboardInterrupt):
    """The cluster was closed while the case waited or ran: the run ends, and nothing is to be tried again."""
