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

WrittenGroups = dict[str, tuple[int, str]]
"""Case id -> revision and split group as written."""

Profiles = Sequence[Profile | None]
"""Of the slices across X, Y and Z; None where too few show a body."""


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

    def alike(self, tables: Tables, groups: WrittenGroups, profiles: Profiles) -> dict[str, float]:
        """Return case id -> distance of the cases that show the scan of `profiles` (across X, Y and Z).

        Known are slices across the axis that a case's header calls Z; a header that lies about the axes is seen
        through because all three of the scan at hand are looked up. groups: as `Tables.written_groups()` returned
        them just now.
        """
        with self._lock:
            self._take_up(tables, groups)
            found: dict[str, float] = {}
            for matches in self._index.find_each([profile for profile in profiles if profile is not None]):
                for match in matches:
                    found[match.name] = min(match.distance, found.get(match.name, match.distance))
            return found

    def pairs(self, tables: Tables, groups: WrittenGroups) -> list[tuple[str, str, float]]:
        """Return all pairs of cases, each in order and once, that are alike across Z, with their distance."""
        with self._lock:
            self._take_up(tables, groups)
            known = self._index.profiles
            pairs: dict[tuple[str, str], float] = {}
            for case_id, matches in zip(known, self._index.find_each(list(known.values())), strict=True):
                for match in matches:
                    if match.name != case_id:
                        pair = (min(case_id, match.name), max(case_id, match.name))
                        pairs[pair] = min(match.distance, pairs.get(pair, match.distance))
            return [(*pair, distance) for pair, distance in sorted(pairs.items())]

    @property
    def size(self) -> int:
        """Cases with a fingerprint, as of the last look."""
        return len(self._index.profiles)

    def _take_up(self, tables: Tables, groups: WrittenGroups) -> None:
        fresh = {
            case_id: revision for case_id, (revision, _) in groups.items() if self._revisions.get(case_id) != revision
        }
        texts = tables.fingerprints(fresh) if fresh else {}
        for case_id, revision in fresh.items():
            text = texts.get(case_id)
            self._index.put(case_id, None if text is None else decode(text))
            self._revisions[case_id] = revision


@cache
def _known_scans(location: Location) -> KnownScans:  # noqa: ARG001  one a lake
    return KnownScans()


@cache
def _declared() -> dict[CaseKey, tuple[CaseKey, ...]]:
    """Return every case that a card declares to be a scan of another number or set, with its whole group."""
    cards, _ = read_all()
    return {key: group for group in scan_groups(cards) for key in group}


def find_twins(
    tables: Tables, case_id: str, group: str, profiles: Profiles, card_id: str | None, native_id: str
) -> list[Twin]:
    """Return the current cases that are the same scan as `case_id`, by case id, each once: exact, content, declared.

    group: its split group by equal voxels. profiles: of its raw voxels. card_id: the card that numbers it, None for a
    cohort of another name, of which no card declares anything.
    """
    groups = tables.written_groups()
    found: dict[str, Twin] = {}
    for key in _declared().get((card_id or "", native_id), ()):
        name = "/".join(key)
        if name in groups:
            found[name] = Twin(name, groups[name][1], "declared")
    alike = _known_scans(tables.location).alike(tables, groups, profiles)
    found.update({name: Twin(name, groups[name][1], "content", alike[name]) for name in alike if name in groups})
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


def search_twins(tables: Tables, *, flow_run_id: str | None = None) -> dict[str, int]:
    """Look for twins among all cases again, by stored fingerprints and by what cards declare, and link them.

    Returns counts: `cases` that have a fingerprint, `pairs` found alike, `new_links` between groups. Ingest looks for
    twins by itself; this is for cases that came in when fewer kinds of copies were found, and for twins that came in
    at once, of which the later was killed between its commit and its second look. A second run changes nothing.
    """
    groups = tables.written_groups()
    known = _known_scans(tables.location)
    pairs = known.pairs(tables, groups)
    found = [(one, Twin(other, groups[other][1], "content", distance)) for one, other, distance in pairs]
    for case_id in groups:
        dataset, _, native_id = case_id.partition("/")
        members = ("/".join(key) for key in _declared().get((dataset, native_id), ()))
        found += [(case_id, Twin(other, groups[other][1], "declared")) for other in members if other in groups]
    rows = [row for one, twin in found for row in link_rows(one, groups[one][1], [twin], flow_run_id=flow_run_id)]
    return {"cases": known.size, "pairs": len(pairs), "new_links": tables.link_twins(rows)}
