"""Which cases are declared to be one scan, across all cards: seeds for the groups that no split divides."""

from __future__ import annotations

from collections.abc import Iterable

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
    parent: dict[CaseKey, CaseKey] = {}

    def root(key: CaseKey) -> CaseKey:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for card in cards:
        for same in card.same_scan:
            for native_id in same.case_ids[1:]:
                parent[root((card.id, native_id))] = root((card.id, same.case_ids[0]))
        for overlap in card.overlaps:
            if overlap.dataset in known:
                for here, there in overlap.pairs:
                    parent[root((card.id, here))] = root((overlap.dataset, there))
    members: dict[CaseKey, list[CaseKey]] = {}
    for key in sorted(parent, key=_in_order):
        members.setdefault(root(key), []).append(key)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)


def _in_order(key: CaseKey) -> tuple[str, int, str]:
    return key[0], int(key[1]) if key[1].isdigit() else -1, key[1]
