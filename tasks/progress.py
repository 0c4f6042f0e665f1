"""How far a long step is: steps report, and whoever shows it (the command's progress bars) listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        left = "" if total is None or rate <= 0 else f", {_duration((total - done) / rate)} left"
        return f"MB, {rate / 1e6:.1f} MB/s{left}"


def _megabytes(count: int) -> int:
    """Round up, so that a small file is not shown as nothing."""
    return -(-count // 10**6)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
