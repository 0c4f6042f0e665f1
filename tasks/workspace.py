"""Open the lake and the tables that the settings point to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import pandas as pd

from catalog.files import files_of
from catalog.lake import Lake
from catalog.location import Location
from catalog.tables import Tables
from tasks.settings import Settings

FIRST_COMMIT = "tables/cases/_delta_log/00000000000000000000.json"
"""Holds the random id under which the tables were made: other tables at the same place have another one."""


@dataclass(frozen=True)
class Workspace:
    """The lake and the tables beside it: what every step reads and writes."""

    settings: Settings
    lake: Lake
    tables: Tables


def row_dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries, the form in which they travel to workers; null is None."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def open_workspace(settings: Settings) -> Workspace:
    """Return the workspace of `settings`; folders and tables are created on first use.

    LakeUnreachable for an object store that does not answer or refuses.
    """
    root = settings.lake
    if not root.is_local:
        _see_that_it_answers(root)
    try:
        tables = _opened_tables(root, files_of(root).read(FIRST_COMMIT), os.getpid())
    except (FileNotFoundError, NotADirectoryError):
        tables = Tables(root)  # which makes them, or words the error
    return Workspace(settings=settings, lake=Lake(root), tables=tables)


@lru_cache(maxsize=4)
def _opened_tables(root: Location, made_as: bytes, process: int) -> Tables:  # noqa: ARG001  (parts of the key)
    """Return tables that stay open in this process: a log is then read from where it was left, not from its start."""
    return Tables(root)


@cache
def _see_that_it_answers(lake: Location) -> None:
    files_of(lake).list("volumes/none")  # once a process: the tables' library words a wrong bucket for its authors


def existing_workspace(settings: Settings) -> Workspace:
    """Return the workspace of `settings`; FileNotFoundError where there is no lake: looking must not make one."""
    workspace = open_workspace(settings)
    if not workspace.tables.exist():
        raise FileNotFoundError(
            f"no tables in {settings.lake}; name the workspace with -w, or fill it with `ctfactory ingest`"
        )
    return workspace
