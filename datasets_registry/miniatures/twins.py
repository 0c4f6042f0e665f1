"""Which cases of which data sets are one scan, as the cards' overlaps say, and how the copies differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasets_registry.miniatures.numbers import case_numbers, count_cases, miniature_cards, native_id_of

Change = Literal["identical", "reoriented", "cropped", "windowed", "cropped, true spacing, reoriented"]
"""Keys of `scan_changes.TWIN_CHANGES`."""


@dataclass(frozen=True)
class Origin:
    """The scan that a copy was made of, and what was done to it."""

    card_id: str
    number: int
    change: Change


# AbdomenCT-1K keeps secret which case comes from where; these are the miniature's own choice. Only 297 = 928 (LiTS 74)
# and the lost spacing of 78 are known.
ABDOMENCT_1K: dict[int, Origin] = {
    1: Origin("msd_pancreas", 1, "identical"),
    2: Origin("msd_spleen", 1, "cropped"),
    3: Origin("msd_pancreas", 2, "identical"),
    78: Origin("lits", 28, "identical"),
    297: Origin("lits", 74, "identical"),
    401: Origin("kits", 0, "windowed"),
    801: Origin("pancreas_ct", 2, "cropped"),
    928: Origin("lits", 74, "reoriented"),
}


def origin_of(card_id: str, number: int) -> Origin | None:
    """Return the scan that case `number` of a set is a copy of, None for a scan of its own. Origins are no copies."""
    if card_id == "msd_liver" and number <= 130:
        return Origin("lits", number, "identical")
    if card_id == "ct_org" and number <= 130:
        return Origin("lits", number, "reoriented")
    if card_id == "ircadb_01":
        return Origin("lits", number + 27, "cropped, true spacing, reoriented")
    if card_id == "flare22":
        return Origin("msd_pancreas", number, "identical")
    if card_id == "totalsegmentator_v1":
        return Origin("totalsegmentator_v2", number, "identical")
    if card_id == "abdomenct_1k":
        return ABDOMENCT_1K.get(number)
    if card_id == "abdomenct_12organ":  # a part of AbdomenCT-1K, whose cases 1 and 3 these are
        return Origin("msd_pancreas", number, "identical") if number <= 2 else None
    if card_id == "flare23_pool":
        return {1: Origin("msd_colon", 1, "identical"), 2: Origin("amos22_ct", 1, "windowed")}.get(number)
    return None


def twin_groups(cases: int) -> list[set[str]]:
    """Return the sets of case ids that show one scan each, among the first `cases` cases of every miniature.

    A case id is `<card id>/<native id>`. Every group has two members or more. The groups hold for any seed, as long as
    all sets are written with the same one.
    """
    groups: dict[tuple[str, int], set[str]] = {}
    for card in miniature_cards():
        for number in case_numbers(card, min(cases, count_cases(card)), extras=True):
            origin = origin_of(card.id, number)
            key = (card.id, number) if origin is None else (origin.card_id, origin.number)
            groups.setdefault(key, set()).add(f"{card.id}/{native_id_of(card, number)}")
    return [group for group in groups.values() if len(group) > 1]
