"""Which cases are declared to be one scan, across all cards: seeds for the groups that no split divides."""

from __future__ import annotations

from collections.abc import Iterable

from scipy.cluster.hierarchy import DisjointSet

from datasets_registry.cards import Card

CaseKey = tuple[str, str]
"""Card id and native id."""


def scan_groups(cards: Iterable[Card]) -> tuple[tuple[CaseKey, ...], ...]:
    """Return every group of two or more cases declared to be the same scan, members and groups in order of card and id.

    Links are `same_scan` within a card and the numbered `overlaps` between cards, followed through: LiTS 28 is MSD
    Liver 28 and IRCADb patient 1, so the latter two are one scan too. A card that is not among `cards` links nothing.
    Scans that are known to be shared but not by number are not here; only their content can tell.
    """
    cards = list(cards)
    known = {card.id for card in cards}
    groups: DisjointSet = DisjointSet()

    def link(one: CaseKey, other: CaseKey) -> None:
        groups.add(one)
        groups.add(other)
        groups.merge(one, other)

    for card in cards:
        for same in card.same_scan:
            for native_id in same.case_ids[1:]:
                link((card.id, native_id), (card.id, same.case_ids[0]))
        for overlap in card.overlaps:
            if overlap.dataset in known:
                for here, there in overlap.pairs:
                    link((card.id, here), (overlap.dataset, there))
    members = [tuple(sorted(group, key=_in_order)) for group in groups.subsets() if len(group) > 1]
    return tuple(sorted(members, key=lambda group: _in_order(group[0])))


def _in_order(key: CaseKey) -> tuple[str, int, str]:
    return key[0], int(key[1]) if key[1].isdigit() else -1, key[1]
