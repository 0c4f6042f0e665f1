"""What is inconsistent, unverified or missing in cards. Nothing here reads a data set or prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from datasets_registry.card_parts import Overlap
from datasets_registry.cards import Card, list_cards, load_card
from datasets_registry.layouts.registry import reader_for
from datasets_registry.taxonomy import class_names

Kind = Literal["inconsistent", "unverified", "missing"]
"""inconsistent: a mistake to correct. unverified: told, but by no source that was read. missing: stated by nobody."""

WORDING = ("fact", "relation", "reason", "name", "text", "note", "case", "tumour")
"""Fields that say in words what a part of a card is about, the first that is there."""


@dataclass(frozen=True)
class Finding:
    """One remark on one field of one card. subject: the file or data set that it is about, where it is about one."""

    card: str
    field: str
    kind: Kind
    text: str
    level: str = ""
    subject: str = ""


def read_all() -> tuple[list[Card], list[Finding]]:
    """Return every card that loads with each of its variants, and a finding for every one that does not."""
    cards: list[Card] = []
    findings: list[Finding] = []
    for card_id in list_cards():
        try:
            card = load_card(card_id)
            for variant in card.variants:
                reader_for(card.with_variant(variant))
        except (ValueError, KeyError) as error:
            findings.append(Finding(card_id, "", "inconsistent", str(error.args[0])))
        else:
            cards.append(card)
    return cards, findings


def audit(cards: Sequence[Card]) -> list[Finding]:
    """Return all findings about `cards`, inconsistencies first, then in order of card."""
    findings = [*contradictions(cards)]
    for card in cards:
        findings += [*unverified(card), *missing(card)]
    return sorted(findings, key=lambda finding: (finding.kind != "inconsistent", finding.card))


def contradictions(cards: Sequence[Card]) -> Iterator[Finding]:
    """Yield what cannot be true: overlaps told differently, unknown ids, counts against lists, classes of no set."""
    known = {card.id: card for card in cards}
    for card in cards:
        for overlap in card.overlaps:
            if overlap.dataset not in known:
                yield Finding(card.id, "overlaps", "inconsistent", f"names {overlap.dataset!r}, which has no card")
            elif overlap.dataset != card.id:
                yield from _one_sided(card, overlap, known[overlap.dataset])
        yield from _counts(card)
    for name, sources in class_sources(cards).items():
        if not sources:
            yield Finding("(all cards)", "annotated_classes", "inconsistent", f"no data set annotates class {name}")


def _one_sided(card: Card, overlap: Overlap, other: Card) -> Iterator[Finding]:
    back = [one for one in other.overlaps if one.dataset == card.id]
    if not back:
        text = f"names {other.id}, whose card does not name {card.id}"
        yield Finding(card.id, "overlaps", "inconsistent", text)
        return
    mirrored = {(there, here) for one in back for here, there in one.pairs}
    if set(overlap.pairs) != mirrored:
        odd = sorted(set(overlap.pairs) ^ mirrored)[0]
        text = f"{card.id}/{odd[0]} = {other.id}/{odd[1]} is declared by one of the two cards only"
        yield Finding(card.id, "overlaps", "inconsistent", text)
    for _, there in overlap.pairs:
        if other.case_ids and there not in other.case_ids:
            text = f"{other.id}/{there} is no case of that card"
            yield Finding(card.id, "overlaps", "inconsistent", text)


def _counts(card: Card) -> Iterator[Finding]:
    if card.case_ids and card.counts.labelled is not None:
        variants = [card.with_variant(name) for name in card.variants]
        listed = {one.label_variant: len({*one.case_ids} - {*one.unlabelled_case_ids}) for one in variants}
        if card.labels and card.counts.labelled not in listed.values():
            text = f"{card.counts.labelled} labelled cases, but the lists of ids give {listed}"
            yield Finding(card.id, "counts", "inconsistent", text)
    for part, ids in card.official_splits.items():
        stated = getattr(card.counts, part)
        if stated is not None and stated != len(ids):
            text = f"{stated} cases in {part}, but official_splits lists {len(ids)}"
            yield Finding(card.id, "official_splits", "inconsistent", text)


def unverified(card: Card) -> Iterator[Finding]:
    """Yield every fact of a card that no source was read for: inferred, recalled, or of unstated confidence.

    A private card speaks of what its owner knows, so nothing of it waits for a source.
    """
    if card.access == "private":
        return
    for field, evidence in card.confidence.items():
        if evidence.level != "seen":
            yield Finding(card.id, field, "unverified", evidence.text, evidence.level)
    for field in type(card).model_fields:
        if field == "confidence" or (field == "licence" and "licence" in card.confidence):
            continue
        for place, part in _parts(getattr(card, field), field):
            level = getattr(part, "confidence", "seen")
            if level != "seen":
                words = next(str(getattr(part, word)) for word in WORDING if getattr(part, word, None))
                subject = part.dataset if isinstance(part, Overlap) else ""
                yield Finding(card.id, place, "unverified", words, level or "not stated", subject)


def _parts(value: object, place: str) -> Iterator[tuple[str, BaseModel]]:
    """Yield every part of a card below `value`, with its place."""
    if isinstance(value, BaseModel):
        if "confidence" in type(value).model_fields:
            yield place, value
        for field in type(value).model_fields:
            yield from _parts(getattr(value, field), f"{place}.{field}")
    elif isinstance(value, tuple | dict):
        items: Iterable[tuple[object, object]] = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _parts(item, f"{place}.{key}")


def missing(card: Card) -> Iterator[Finding]:
    """Yield what nobody states: digests of files, terms of use, where to get it, how many cases there are."""
    for number, source in enumerate(card.sources):
        if source.md5 is None and source.sha256 is None and not source.volatile:
            text = "no digest; the first download records it"
            yield Finding(card.id, f"sources.{number}", "missing", text, subject=source.name)
    if card.access == "private":
        return
    if card.licence.spdx is None:
        yield Finding(card.id, "licence.spdx", "missing", card.licence.note or "no licence stated")
    if card.licence.non_commercial is None:
        yield Finding(card.id, "licence.non_commercial", "missing", "whether commercial use is allowed is not stated")
    if not card.sources:
        yield Finding(card.id, "sources", "missing", "no source is known; the files have to be found by a person")
    if card.citation.doi is None:
        yield Finding(card.id, "citation.doi", "missing", f"no DOI of {card.citation.short or 'a publication'}")
    if card.counts.labelled is None and card.labels:
        yield Finding(card.id, "counts.labelled", "missing", "the number of labelled cases is not stated")


def class_sources(cards: Sequence[Card]) -> dict[str, list[str]]:
    """Return class -> ids of the cards that annotate it in any variant, for every class of the taxonomy.

    Private cards do not count: they name every class that a cohort might bring.
    """
    found: dict[str, list[str]] = {name: [] for name in class_names()}
    for card in cards:
        if card.access == "private":
            continue
        variants = [card.annotated_classes, *(variant.annotated_classes for variant in card.label_variants.values())]
        for name in dict.fromkeys(name for names in variants for name in names):
            found[name].append(card.id)
    return found
