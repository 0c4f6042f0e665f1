"""What no row of any table version names: found by listing the lake, removed when it is older than a grace time.

Why no file that a row names, or soon will, is removed while writers run: a writer makes what it stores young (new
files, or the note on what was there already rewritten), under the lock of the case or before a look for the mark of a
removal (object stores). Here, under that lock or behind that mark, tables and ages are looked at again. So the grace
time must only be longer than a writer takes from storing a case to committing its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from catalog.files import Found
from catalog.lake import Lake
from catalog.lake_write import LABELS, NOTE, SUFFIX, VOLUMES, index_labels
from catalog.publish import PARTIAL
from catalog.references import StoredVersion, stored_versions
from catalog.tables import Tables

GRACE = timedelta(hours=24)

Kind = Literal["case", "annotation", "leftover"]


@dataclass(frozen=True)
class Orphan:
    """A case, an annotation, or what a killed writer left aside, that no row names; with the note beside it.

    path: relative to the lake's root. names: its files. youngest: when the last of them was written.
    """

    kind: Kind
    path: str
    names: tuple[str, ...]
    bytes: int
    youngest: datetime


def case_home(name: str) -> str:
    """Return the folder of all versions of a case from the path of one of its files."""
    return "/".join(name.split("/")[:3])


def find_orphans(files: Mapping[str, Found], known: Mapping[str, StoredVersion]) -> list[Orphan]:
    """Return what of `files`, all those of one or more cases, no version in `known` names; sorted by path.

    Files that the lake never writes are nobody's orphans.
    """
    grouped: dict[tuple[Kind, str], list[str]] = {}
    for name in files:
        unit = _unit_of(name, known)
        if unit is not None:
            grouped.setdefault(unit, []).append(name)
    return [
        Orphan(
            kind,
            path,
            tuple(names),
            bytes=sum(files[name].size for name in names),
            youngest=max(files[name].modified for name in names),
        )
        for (kind, path), names in sorted(grouped.items(), key=lambda item: item[0][1])
    ]


def _unit_of(name: str, known: Mapping[str, StoredVersion]) -> tuple[Kind, str] | None:
    """Return the orphan that a file belongs to; None where a row names it, or where it is none of the lake's."""
    parts = name.split("/")
    for depth, part in enumerate(parts[3:], start=4):
        if part.startswith(".") and part.endswith(PARTIAL):
            return "leftover", "/".join(parts[:depth])
    if len(parts) == 4 and parts[3].endswith(NOTE):
        short, _, annotation = parts[3].removesuffix(NOTE).partition(".")
        case_path = f"{case_home(name)}/{short}{SUFFIX}"
    elif len(parts) > 4 and parts[3].endswith(SUFFIX):
        case_path = "/".join(parts[:4])
        annotation = parts[5] if parts[4] == LABELS and len(parts) > 6 else ""
    else:
        return None
    if case_path not in known:
        return "case", case_path
    if annotation and annotation not in known[case_path].annotations:
        return "annotation", f"{case_path}/{LABELS}/{annotation}"
    return None


def collect_garbage(tables: Tables, lake: Lake, grace: timedelta = GRACE, *, dry_run: bool = False) -> list[Orphan]:
    """Remove the orphans older than `grace`, and return them by path; dry_run: only return them.

    grace: longer than any writer takes from storing a case to committing its rows. Nothing else may be assumed of
    the writers that run meanwhile. A second call finds nothing. LakeUnreachable for a store out of reach.
    """
    if grace < timedelta(0):
        raise ValueError(f"grace time is {grace}, expected 0 or more")
    known = _Known(tables)
    found = _older(find_orphans(lake.files.list(VOLUMES), known.now()), datetime.now(UTC) - grace)
    if dry_run:
        return found
    removed: dict[str, Orphan] = {}
    for home in sorted({case_home(orphan.path) for orphan in found}):
        with lake.files.emptying(home) as now:
            if now is None:
                continue
            # Entering a local folder removed what was left aside there, for nobody else can be writing it.
            left = [orphan for orphan in found if orphan.kind == "leftover" and case_home(orphan.path) == home]
            for orphan in (*left, *_older(find_orphans(lake.files.list(home), known.now()), now - grace)):
                _remove(lake, orphan)
                removed[orphan.path] = orphan
    return [removed[path] for path in sorted(removed)]


def _older(orphans: Iterable[Orphan], than: datetime) -> list[Orphan]:
    return [orphan for orphan in orphans if orphan.youngest <= than]


def _remove(lake: Lake, orphan: Orphan) -> None:
    lake.files.remove(orphan.path)
    for name in orphan.names:  # the notes beside it, last: what a kill leaves is an orphan still
        if not name.startswith(f"{orphan.path}/"):
            lake.files.remove(name)
    if orphan.kind == "annotation":
        index_labels(lake.files, orphan.path.split(f"/{LABELS}/")[0])


class _Known:
    """The stored versions as of the newest commit, read again only after another commit."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._at: dict[str, int] | None = None
        self._versions: Mapping[str, StoredVersion] = {}

    def now(self) -> Mapping[str, StoredVersion]:
        """Return them by path."""
        at = self._tables.versions()
        if at != self._at:
            self._at, self._versions = at, stored_versions(self._tables, at)
        return self._versions
