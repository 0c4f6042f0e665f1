"""Which case numbers a miniature holds, in which order, and what the set calls them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from datasets_registry.cards import CARDS, Card, list_cards, load_card
from datasets_registry.miniatures.nifti_sets import image_name

CHAOS_IDS = (1, 2, 5, 6, 8, 10, 14, 16, 18, 19, *range(21, 31))
GIBSON_FIRST = (*range(2, 15), *range(16, 23), 24, *range(26, 36), *range(38, 49))
ROSTERS: dict[str, Sequence[int]] = {
    "abdomenct_12organ": range(1, 51),
    "abdomenct_1k": range(1, 1063),
    "amos22_ct": range(1, 411),
    "btcv": (*range(1, 11), *range(21, 41), *range(61, 81)),
    "chaos_ct": CHAOS_IDS,
    "ct_org": range(140),
    "flare22": range(1, 51),
    "flare23_pool": range(1, 2201),
    "ircadb_01": range(1, 21),
    "kits": (*range(300), *range(400, 589)),
    "lits": range(131),
    "msd_liver": range(131),
    # the ids with labels of every organ first, the rest of the collection after them
    "pancreas_ct": (*GIBSON_FIRST, 1, 15, 23, *range(36, 38), *range(49, 70), *range(71, 83)),
    "totalsegmentator_v1": range(1430),
    "totalsegmentator_v2": range(1430),
    "word": range(1, 151),
}
"""Case numbers of each set; a case's place in its roster decides what its patient has."""

SHOWCASE: dict[str, Sequence[int]] = {
    "abdomenct_1k": (1, 401, 801, 78, 297, 928, 2, 3, 219),
    "amos22_ct": (1, 8),
    "btcv": (1, 61, 21),
    "ct_org": (0, 28, 32, 74),
    "ircadb_01": (1, 5, 7, 14),
    "kits": (0, 400, 401),
    "lits": (0, 28, 32, 74),
    "msd_liver": (0, 28, 32, 74),
    "word": (2, 1, 14),
}
"""Numbers that a miniature with extras holds first, since they show twins and peculiarities; the roster follows."""


def case_numbers(card: Card, cases: int, *, extras: bool = False) -> list[int]:
    """Return the numbers of the first `cases` cases that have a label and are not known as faulty.

    extras: whether the peculiar cases come first. Raises ValueError when the set has fewer cases.
    """
    numbers = list(islice(_labelled(card, extras), cases))
    if cases > len(numbers):
        raise ValueError(f"card {card.id}: {cases} cases asked for, but it has {len(numbers)} labelled ids")
    return numbers


def miniature_cards() -> list[Card]:
    """Return the cards of the package that have numbered cases, that is, all but a cohort of one's own (`local`)."""
    cards = (load_card(card_id) for card_id in list_cards(CARDS))
    return [card for card in cards if card.layout.reader != "local"]


def count_cases(card: Card) -> int:
    """Return how many cases a miniature of the set can have."""
    return sum(1 for _ in _labelled(card, extras=False))


def turn_of(card: Card, number: int) -> int:
    """Return the place of a case in its set, which decides its lesions and file names whatever else is written."""
    return list(_roster(card)).index(number)


def native_id_of(card: Card, number: int) -> str:
    """Return what the set calls case `number`."""
    if card.id in ("chaos_ct", "ircadb_01"):
        return str(number)
    if card.id == "pancreas_ct":
        return f"{number:04d}"
    return image_name(card, number)[0]


def _roster(card: Card) -> Sequence[int]:
    if card.layout.case_id is not None:
        return range(1, 2)
    return ROSTERS.get(card.id, range(1, 1000))


def _labelled(card: Card, extras: bool) -> Iterator[int]:
    ruled_out = {one for part in card.refused_cases for one in part.case_ids}
    left_out = {*card.faults, *card.unlabelled_case_ids, *ruled_out}
    for number in dict.fromkeys(chain(SHOWCASE.get(card.id, ()) if extras else (), _roster(card))):
        name = native_id_of(card, number)
        if name not in left_out and (not card.case_ids or name in card.case_ids):
            yield number
