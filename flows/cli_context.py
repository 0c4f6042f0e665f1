"""What every command that runs a flow needs around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.settings import Settings


@contextmanager
def flow_context(settings: Settings, *, as_json: bool) -> Iterator[None]:
    """A Prefect API to report to, and progress bars unless the output is for a script."""
    from flows.console import errors, notices, progress_bars  # late, as in every command
    from flows.local_server import prefect_api

    if not as_json and not os.environ.get("PREFECT_API_URL"):
        errors.print("starting a local Prefect server …", style="dim")
    with prefect_api(settings), progress_bars(enabled=not as_json), notices():
        yield
