"""How far a long step is, as a Prefect artifact: the run's page shows what the command's progress bar does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.progress import listening

if TYPE_CHECKING:
    from uuid import UUID

EVERY_S = 5.0
"""Seconds between two updates; each is a request to the server."""


@contextmanager
def progress_artifact(what: str) -> Iterator[None]:
    """Publish reports of `what` made while the block runs, under the key `<what>-progress`; needs a flow around it."""
    made = create_progress_artifact(progress=0.0, key=f"{what}-progress", description=f"{what}: begins")
    artifact = cast("UUID", made)  # its type is also that of the form for async flows
    told = float("-inf")

    def show(kind: str, done: int, total: int, note: str) -> None:
        nonlocal told
        now = time.monotonic()
        if kind == what and (done == total or now - told >= EVERY_S):
            told = now
            share = 100.0 * done / max(total, 1)
            update_progress_artifact(artifact, progress=share, description=f"{what}: {done}/{total}, {note}")

    with listening(show):
        yield
