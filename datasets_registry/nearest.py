"""A name that is not known: which known ones it may have been meant for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_names(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return up to `most` of `known` that read most like `name`, the likest first; case does not matter."""
    by_lower = {one.lower(): one for one in known}
    return [by_lower[one] for one in difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=0.3)]


def nearest_text(name: str, known: Iterable[str]) -> str:
    """Return the nearest of `known` as it stands in an error message: `nearest: liver, liver_tumor`."""
    return f"nearest: {', '.join(nearest_names(name, known)) or 'none'}"
