"""Lists of native ids as cards write them: ranges such as "0061-0080" stand for every number between, of one width."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

SHORTEST_RANGE = 3
"""Consecutive ids from which on `compact_ids` writes a range."""


def expand_ids(value: Any) -> Any:
    """Write out ranges: "0061-0080" becomes twenty ids of the same width; any other entry is kept as it is.

    Raises ValueError for a range that runs backwards and for an id listed twice.
    """
    if not isinstance(value, list):
        return value
    ids: list[str] = []
    for entry in value:
        span = re.fullmatch(r"(\d+)-(\d+)", str(entry))
        if span is None:
            ids.append(str(entry))
            continue
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise ValueError(f"range {entry!r} runs backwards")
        ids.extend(str(number).zfill(len(span[1])) for number in range(first, last + 1))
    twice = sorted(one for one, times in Counter(ids).items() if times > 1)
    if twice:
        raise ValueError(f"ids listed twice: {twice}")
    return ids


def compact_ids(ids: Iterable[str]) -> list[str]:
    """Return the ids with runs of consecutive numbers written as ranges; `expand_ids` gives the same ids again."""
    compact: list[str] = []
    run: list[str] = []
    for one in ids:
        if run and one == str(int(run[-1]) + 1).zfill(len(run[0])):
            run.append(one)
            continue
        compact += _written(run)
        run = [one] if one.isdigit() else []
        if not run:
            compact.append(one)
    return compact + _written(run)


def _written(run: list[str]) -> list[str]:
    return [f"{run[0]}-{run[-1]}"] if len(run) >= SHORTEST_RANGE else run


CaseIds = Annotated[tuple[str, ...], BeforeValidator(expand_ids), PlainSerializer(compact_ids, when_used="json")]
"""Native ids of a data set, ranges allowed in YAML, written out in memory, ranges again in JSON."""
