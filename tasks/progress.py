"""How far a long step is: steps report, and whoever shows it (the command's progress bars) listens."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tasks.lost import Lost

Listener = Callable[[str, int, int, str], None]
"""Called with (what, done, total, note)."""

_listeners: list[Listener] = []


def report_progress(what: str, done: int, total: int, note: str = "") -> None:
    """Tell every listener that `done` of `total` of `what` are finished; without a listener nothing happens."""
    for listener in _listeners:
        listener(what, done, total, note)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` for every report made while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class CaseProgress:
    """Counts the cases of a run over all its batches, and reports them with rate, time left and what went wrong.

    total: cases of the run. refused: whether a result counts as refused; a case without one (`Lost`) always does. May
    be called from several threads.
    """

    RECENT = 100
    """Cases whose finishing times give the rate, so that it is the present one."""

    def __init__(self, what: str, total: int, refused: Callable[[Any], bool] = lambda _: False) -> None:
        self.what = what
        self._total = total
        self._is_refused = refused
        self._done = self._refused = 0
        self._lost: Sequence[str] = ()
        self._finished = deque([time.monotonic()], maxlen=self.RECENT)
        self._lock = threading.RLock()

    @contextmanager
    def batch(self) -> Iterator[Callable[[Any, Sequence[str]], None]]:
        """Give what to call with each result, and the workers lost so far; a batch that fails counts for nothing."""
        counted: list[bool] = []
        self.report()

        def finished(result: Any, lost_workers: Sequence[str]) -> None:
            counted.append(isinstance(result, Lost) or self._is_refused(result))
            self._count(1, counted[-1], lost_workers)

        try:
            yield finished
        except BaseException:
            self._count(-len(counted), -sum(counted), self._lost)
            raise

    def _count(self, done: int, refused: int, lost_workers: Sequence[str]) -> None:
        with self._lock:
            self._done += done
            self._refused += refused
            self._lost = tuple(lost_workers)
            if done > 0:
                self._finished.append(time.monotonic())
            self.report()

    def report(self) -> None:
        """Tell every listener how far the run is."""
        with self._lock:
            report_progress(self.what, self._done, self._total, self._note())

    def _note(self) -> str:
        passed = self._finished[-1] - self._finished[0]
        rate = (len(self._finished) - 1) / passed if passed > 0 else 0.0
        left = self._total - self._done
        parts = [
            f"{60 * rate:.3g} cases/min" if rate else "",
            f"{duration(left / rate)} left" if rate and left else "",
            f"{self._refused} refused" if self._refused else "",
            f"lost {_workers(self._lost)}" if self._lost else "",
        ]
        return ", ".join(part for part in parts if part)


def _workers(addresses: Sequence[str]) -> str:
    """Name the workers lost last, and count the others."""
    named = ", ".join(address.rpartition("/")[2] for address in addresses[-2:])
    more = f" and {len(addresses) - 2} more" if len(addresses) > 2 else ""
    return f"worker{'s' if len(addresses) > 1 else ''} {named}{more}"


class ByteProgress:
    """Turns byte counts of one transfer into reports in megabytes, with rate and time left in the note.

    Call it with (bytes so far, bytes in all or None), as often as bytes come; it reports at most once in `every_s`.
    The rate counts from the first call on, so that bytes of an earlier run do not flatter it.
    """

    def __init__(self, what: str, every_s: float = 0.5) -> None:
        self._what = what
        self._every_s = every_s
        self._start: tuple[float, int] | None = None
        self._told = float("-inf")

    def __call__(self, done: int, total: int | None) -> None:
        """Take the state of the transfer."""
        now = time.monotonic()
        if self._start is None or done < self._start[1]:
            self._start = (now, done)
        if done != total and now - self._told < self._every_s:
            return
        self._told = now
        report_progress(self._what, _megabytes(done), _megabytes(total or done), self._note(now, done, total))

    def _note(self, now: float, done: int, total: int | None) -> str:
        if self._start is None or now <= self._start[0]:
            return "MB"
        rate = (done - self._start[1]) / (now - self._start[0])
        left = "" if total is None or rate <= 0 else f", {duration((total - done) / rate)} left"
        return f"MB, {rate / 1e6:.1f} MB/s{left}"


def _megabytes(count: int) -> int:
    """Round up, so that a small file is not shown as nothing."""
    return -(-count // 10**6)


def duration(seconds: float) -> str:
    """Return seconds as `1:05` or `2:01:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
