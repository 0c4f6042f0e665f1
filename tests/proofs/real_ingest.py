"""The ingest of several data sets, as the flow does it, with a journal of the work begun and done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks import ingest, ingest_case
from tasks.settings import Settings

SPACING_MM = (12.0, 12.0, 12.0)


def ingest_sets(raw: str, lake: str, sets: list[str], journal: str) -> None:
    """Ingest the folder of each of `sets` below `raw`.

    journal: a file outside of the lake that gets a line `begin <case>` before a case is harmonised, and a line
    `<outcome> <case>` for each case of a set that is through.
    """
    settings = Settings(lake_root=str(lake), spacing_mm=SPACING_MM)
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(*words: str) -> None:
        os.write(descriptor, (" ".join(words) + "\n").encode())

    def noted(real: Callable[..., Any]) -> Callable[..., Any]:
        def harmonise(raw: Any, card: Any, spacing_mm: Any, files: Any) -> Any:
            note("begin", files.where)
            return real(raw, card, spacing_mm, files)

        return harmonise

    ingest_case.harmonise = noted(ingest_case.harmonise)  # type: ignore[attr-defined]
    for name in sets:
        listing = ingest.list_source(name, Path(raw) / name, settings)
        for outcome in ingest.ingest_batch(listing.requests, settings):
            note(outcome.outcome, outcome.case_id)
