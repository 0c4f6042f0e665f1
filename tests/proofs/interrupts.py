"""Ctrl-C at a chosen step of a writer that goes on living: what `finally` blocks and kept objects then hold."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from catalog import delta

FILE_CALLS = ("fsync", "rename", "replace", "mkdir")


class Interrupted(KeyboardInterrupt):
    """Stands for Ctrl-C."""


@contextmanager
def interrupted(commits: bool, at: int) -> Iterator[None]:
    """Raise `Interrupted` at step number `at` (from 1) of the block, and let it leave the block.

    commits: the steps are before and after each commit to a table; else each call of `FILE_CALLS`, done or not in turn.
    """
    steps = 0

    def step() -> None:
        nonlocal steps
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers Ctrl-C to the main thread only
        steps += 1
        if steps == at:
            raise Interrupted

    def around(real: Callable[..., Any], before: bool, after: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if before:
                step()
            result = real(*arguments, **options)
            if after:
                step()
            return result

        return call

    with ExitStack() as patches:
        if commits:
            patches.enter_context(patch.object(delta, "write_deltalake", around(delta.write_deltalake, True, True)))
        else:
            for name in FILE_CALLS:
                done = at % 2 == 0
                patches.enter_context(patch.object(os, name, around(getattr(os, name), not done, done)))
        try:
            yield
        except Interrupted:
            return
