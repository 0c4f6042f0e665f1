"""One data set in a line: what `ctfactory datasets list` shows of a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from datasets_registry.card_audit import Finding
from datasets_registry.card_ids import compact_ids
from datasets_registry.cards import Card
from datasets_registry.taxonomy import class_info

Coverage = Literal["every case", "some cases", "variant"]
"""How far a class is known: in every labelled case, in the cases that ship it, or only with another label variant."""


@dataclass(frozen=True)
class Summary:
    """A card's line. unverified: facts that no source was read for, or that nobody states (digests, terms)."""

    id: str
    title: str
    role: str
    access: str
    licence: str | None
    non_commercial: bool | None
    labelled: int | None
    unlabelled: int | None
    annotated_classes: tuple[str, ...]
    coverage: dict[str, Coverage]
    variants: tuple[str, ...]
    overlaps: tuple[str, ...]
    unverified: int
    reader: str

    @property
    def class_ranges(self) -> str:
        """Indices of the classes known without asking for another variant, as ranges: `1-9 11-14`."""
        indices = sorted(class_info(name).index for name in self.annotated_classes)
        return " ".join(compact_ids(map(str, indices)))

    def as_dict(self) -> dict[str, Any]:
        """Return the line for JSON."""
        return asdict(self)


def summarise(card: Card, findings: Sequence[Finding]) -> Summary:
    """Return the line of a card; findings: those of an audit, of any cards."""
    return Summary(
        id=card.id,
        title=card.title,
        role=card.role,
        access=card.access,
        licence=card.licence.spdx,
        non_commercial=card.licence.non_commercial,
        labelled=card.counts.labelled,
        unlabelled=card.counts.unlabelled,
        annotated_classes=card.annotated_classes,
        coverage=coverage(card),
        variants=card.variants,
        overlaps=tuple(dict.fromkeys(one.dataset for one in card.overlaps if one.dataset != card.id)),
        unverified=sum(1 for finding in findings if finding.card == card.id and finding.kind != "inconsistent"),
        reader=card.layout.reader,
    )


def coverage(card: Card) -> dict[str, Coverage]:
    """Return class -> how far it is known, in index order."""
    found: dict[str, Coverage] = {}
    for variant in card.label_variants.values():
        found.update(dict.fromkeys(variant.annotated_classes, "variant"))
    partial = set(card.annotated_classes) - set(card.always_annotated) if card.annotation_rule == "present" else set()
    for rule in card.annotated_by_case:
        partial |= set(card.annotated_classes) - set(rule.annotated_classes)
    for name in card.annotated_classes:
        found[name] = "some cases" if name in partial else "every case"
    return dict(sorted(found.items(), key=lambda item: class_info(item[0]).index))
