"""Which cases of the lake are the scan at hand: of equal voxels, alike slice by slice, or declared so by a card."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from catalog.location import Location
from catalog.tables import Tables
from catalog.twins import How, TwinIndex
from datasets_registry.card_audit import read_all
from datasets_registry.card_twins import CaseKey, scan_groups
from imaging.fingerprint import Profile, decode


@dataclass(frozen=True)
class Twin:
    """A case that shows the same scan, its split group as written, and how that is known.

    distance: of the fingerprints, for `content` only; 0: the same.
    """

    case_id: str
    group: str
    how: How
    distance: float | None = field(default=None, compare=False)


class KnownScans:
    """The fingerprints of a lake's current cases, kept in this process and brought up to date before each look."""

    def __init__(self) -> None:
        self._index = TwinIndex()
        self._revisions: dict[str, int] = {}
        self._lock = threading.Lock()

    def alike(self, tables: Tables, groups: dict[str, tuple[int, str]], profile: Profile) -> dict[str, float]:
        """Return case id -> distance of the cases whose slices are those of `profile`.

        groups: as `Tables.written_groups()` returned them just now.
        """
        with self._lock:
            fresh = {
                case_id: revision
                for case_id, (revision, _) in groups.items()
                if self._revisions.get(case_id) != revision
            }
            texts = tables.fingerprints(fresh) if fresh else {}
            for case_id, revision in fresh.items():
                text = texts.get(case_id)
                self._index.put(case_id, None if text is None else decode(text))
                self._revisions[case_id] = revision
            return {match.name: match.distance for match in self._index.find(profile)}


@cache
def _known_scans(location: Location) -> KnownScans:  # noqa: ARG001  one a lake
    return KnownScans()


@cache
def _declared() -> dict[CaseKey, tuple[CaseKey, ...]]:
    """Return every case that a card declares to be a scan of another number or set, with its whole group."""
    cards, _ = read_all()
    return {key: group for group in scan_groups(cards) for key in group}


def find_twins(
    tables: Tables, case_id: str, group: str, profile: Profile | None, card_id: str | None, native_id: str
) -> list[Twin]:
    """Return the current cases that are the same scan as `case_id`, by case id, each once: exact, content, declared.

    group: its split group by equal voxels. profile: of its raw voxels, None: too few slices. card_id: the card that
    numbers it, None for a cohort of another name, of which no card declares anything.
    """
    groups = tables.written_groups()
    found: dict[str, Twin] = {}
    for key in _declared().get((card_id or "", native_id), ()):
        name = "/".join(key)
        if name in groups:
            found[name] = Twin(name, groups[name][1], "declared")
    if profile is not None:
        alike = _known_scans(tables.location).alike(tables, groups, profile)
        found.update(
            {
                name: Twin(name, groups[name][1], "content", distance)
                for name, distance in alike.items()
                if name in groups
            }
        )
    found.update({name: Twin(name, group, "exact") for name, (_, other) in groups.items() if other == group})
    found.pop(case_id, None)
    return [found[name] for name in sorted(found)]


def link_rows(case_id: str, group: str, twins: Sequence[Twin], *, flow_run_id: str | None) -> list[dict[str, Any]]:
    """Return the rows of the `twins` table that join the group of `case_id` with those of its twins.

    Twins of equal voxels share the group already and need no row.
    """
    rows = []
    for twin in twins:
        if twin.group == group:
            continue
        (group_a, case_a), (group_b, case_b) = sorted([(group, case_id), (twin.group, twin.case_id)])
        rows.append(
            {
                "group_a": group_a,
                "group_b": group_b,
                "how": twin.how,
                "case_a": case_a,
                "case_b": case_b,
                "distance": twin.distance,
                "flow_run_id": flow_run_id,
            }
        )
    return rows
