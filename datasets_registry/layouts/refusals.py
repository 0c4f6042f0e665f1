"""Cases that a card rules out by their number: known faults, other modalities, numbers that the set does not have."""

from __future__ import annotations

from datasets_registry.card_ids import compact_ids
from datasets_registry.cards import Card
from imaging.errors import BadInput

SHOWN = 6
"""Ranges of expected ids quoted in a message."""


def refuse_by_id(card: Card, native_id: str) -> None:
    """Raise BadInput for a case that the card rules out: `faulty_case`, the card's own code, or `unexpected_case`."""
    where = f"{card.id}/{native_id}"
    if fault := card.faults.get(native_id):
        raise BadInput(
            "faulty_case",
            where,
            f"a case known as faulty ({fault.reason})",
            "a usable case",
            f"leave it out; reported by {fault.source} ({fault.confidence})",
        )
    for refused in card.refused_cases:
        if native_id in refused.case_ids:
            raise BadInput(
                refused.code,
                where,
                refused.reason,
                f"a case of {card.title}",
                f"leave it out ({refused.confidence})",
            )
    if card.case_ids and native_id not in card.case_ids:
        ranges = compact_ids(card.case_ids)
        more = f" and {len(ranges) - SHOWN} more" if len(ranges) > SHOWN else ""
        raise BadInput(
            "unexpected_case",
            where,
            f"number {native_id}",
            f"one of {', '.join(ranges[:SHOWN])}{more}, the {len(card.case_ids)} cases of variant {card.label_variant}",
            "check that this is the archive that the card describes, or add the number to case_ids of the card",
        )
