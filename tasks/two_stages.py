"""Two steps over many cases, of which the second one of a case runs while the first one of the next case does."""

from __future__ import annotations

import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Case = TypeVar("Case")
Between = TypeVar("Between")
Result = TypeVar("Result")

WAITING = 1
"""Finished first steps that wait for their second one: with the one in work, so many volumes are held besides."""


@dataclass
class StageTimes:
    """Seconds spent in the first steps, in the second ones, and from the start of all to the end of all."""

    first_s: float = 0.0
    second_s: float = 0.0
    wall_s: float = 0.0

    @property
    def first_share(self) -> float | None:
        """Share of the time in which a first step was at work; None before anything was."""
        return self.first_s / self.wall_s if self.wall_s else None

    def add(self, other: StageTimes) -> None:
        """Count the times of another batch, which ran before or after this one."""
        self.first_s += other.first_s
        self.second_s += other.second_s
        self.wall_s += other.wall_s


def in_two_stages(
    first: Callable[[Case], Between],
    second: Callable[[Case, Between], Result],
    cases: Iterable[Case],
    *,
    times: StageTimes | None = None,
    waiting: int = WAITING,
) -> Iterator[Result]:
    """Yield `second(case, first(case))` of every case, in order, as a plain loop would.

    `first` runs here, one case after the other; `second` in one thread beside, in the same order, at most `waiting`
    cases behind. An exception of either is raised where a plain loop would raise it: after the results of the cases
    before, and no `second` of a later case has begun. What `first` made of later cases is dropped. times: filled in.
    """
    taken = StageTimes() if times is None else times
    started = time.monotonic()
    context = contextvars.copy_context()
    pending: deque[Future[Result]] = deque()
    broken = False

    def timed(case: Case, between: Between) -> Result:
        nonlocal broken
        if broken:
            raise RuntimeError("a case before this one failed")  # never seen: the failure before it is raised first
        begun = time.monotonic()
        try:
            return second(case, between)
        except BaseException:
            broken = True
            raise
        finally:
            taken.second_s += time.monotonic() - begun

    with ThreadPoolExecutor(1, thread_name_prefix="second-stage") as beside:
        try:
            for case in cases:
                begun = time.monotonic()
                try:
                    between = first(case)
                except Exception:
                    while pending:  # those before it come first, as in a plain loop
                        yield pending.popleft().result()
                    raise
                taken.first_s += time.monotonic() - begun
                while len(pending) > waiting or (pending and pending[0].done()):
                    yield pending.popleft().result()
                pending.append(beside.submit(context.run, timed, case, between))
                del between
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            taken.wall_s += time.monotonic() - started
