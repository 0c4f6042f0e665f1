"""What a person must be told while a step runs, such as a licence: steps say it, and whoever shows it listens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.checkpoint import read_metadata
from models.licence import licence_notice

_listeners: list[Callable[[str], None]] = []


def tell(text: str) -> None:
    """Give `text` to every listener; without one it is a warning of the log, which Python writes to standard error."""
    for listener in _listeners:
        listener(text)
    if not _listeners:
        logging.getLogger("ctfactory").warning(text)


def tell_licence(name: str, checkpoint: Path) -> None:
    """Tell the licence of the weights in `checkpoint`, where they came from others; name: as the user calls it."""
    if notice := licence_notice(name, read_metadata(checkpoint).extra):
        tell(notice)


@contextmanager
def told(listener: Callable[[str], None]) -> Iterator[None]:
    """Call `listener` with every notice given while the block runs, with the same one once."""
    heard: set[str] = set()

    def once(text: str) -> None:
        if text not in heard:
            heard.add(text)
            listener(text)

    _listeners.append(once)
    try:
        yield
    finally:
        _listeners.remove(once)
