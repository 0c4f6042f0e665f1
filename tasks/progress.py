"""How far a long step is: steps report, and whoever shows it (the command's progress bars) listens."""

from __future__ import annotations

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
