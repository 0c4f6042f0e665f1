"""How many threads one case may use: two, or one where processes share out the cores (`OMP_NUM_THREADS=1`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MOST = 2
"""More than two threads make a case little faster."""


def case_threads() -> int:
    """Return 1 where OMP_NUM_THREADS is 1, as Dask sets it for its workers; else `MOST`."""
    return 1 if os.environ.get("OMP_NUM_THREADS") == "1" else MOST


@contextmanager
def beside() -> Iterator[Executor]:
    """Give an executor of one thread beside the caller's, or one that works in the caller's where one is all."""
    if case_threads() == 1:
        yield _Inline()
        return
    with ThreadPoolExecutor(1) as executor:
        yield executor


class _Inline(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # kept for whoever asks for the result, as threads do
            future.set_exception(error)
        return future
