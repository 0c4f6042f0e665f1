"""Cards: what is known about one data set, declared in `cards/<id>.yaml` and checked when loaded."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from datasets_registry.card_files import CARDS, card_folders, find_card_file, list_card_files, read_card_file
from datasets_registry.card_ids import CaseIds
from datasets_registry.card_parts import (
    CaseFlag,
    CaseRule,
    Citation,
    Counts,
    Evidence,
    FaultyCase,
    Guard,
    LabelQuality,
    LabelValue,
    Layout,
    Licence,
    Overlap,
    Part,
    Quirk,
    RefusedCases,
    SameScan,
    SpacingFault,
    TumourFreeCases,
    require_classes,
)
from datasets_registry.card_rules import (
    known_classes,
    require_case_rules,
    require_coverage,
    require_known_variants,
    require_label_fields,
    require_listed_ids,
)
from datasets_registry.card_variant import LabelVariant
from datasets_registry.sources.spec import Source
from datasets_registry.taxonomy import class_info, class_names

__all__ = ["CARDS", "Card", "LabelValue", "LabelVariant", "card_folders", "list_cards", "load_card"]


class Card(Part):
    """Everything the factory knows about one data set.

    labels: native value -> meaning; value 0 is background and never declared. annotated_classes: classes whose presence
    AND absence the annotators recorded in every labelled case; any other class is unknown, never background.
    annotation_rule present: only the structures that a case ships were looked for in it, besides `always_annotated`.
    tumour_free: lesion classes that no patient of the set has (a statement about people, not about labels).
    case_ids: every native id of the set, empty where nobody states them. unlabelled_case_ids: cases shipped without a
    label on purpose. label_variant: which label file `labels` describes. case_flags: warnings for single cases.
    """

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    role: Literal["train", "external"]
    access: Literal["open", "registration", "application", "private"]
    licence: Licence
    citation: Citation
    landing_page: str | None
    sources: tuple[Source, ...] = ()
    counts: Counts = Counts()
    layout: Layout
    labels: dict[int, LabelValue] = Field(default_factory=dict)
    label_variant: str = "official"
    label_variants: dict[str, LabelVariant] = Field(default_factory=dict)
    annotated_classes: tuple[str, ...] = ()
    annotation_rule: Literal["declared", "present"] = "declared"
    always_annotated: tuple[str, ...] = ()
    annotated_by_case: tuple[CaseRule, ...] = ()
    label_origin: Literal["human", "model"] | None
    label_model: str | None = None
    label_quality: tuple[LabelQuality, ...] = ()
    tumour_free: tuple[str, ...] = ()
    tumour_free_cases: tuple[TumourFreeCases, ...] = ()
    tumour_present: dict[str, str] = Field(default_factory=dict)
    overlaps: tuple[Overlap, ...] = ()
    same_scan: tuple[SameScan, ...] = ()
    case_ids: CaseIds = ()
    unlabelled_case_ids: CaseIds = ()
    official_splits: dict[Literal["train", "val", "test"], CaseIds] = Field(default_factory=dict)
    faulty_cases: tuple[FaultyCase, ...] = ()
    refused_cases: tuple[RefusedCases, ...] = ()
    unreliable_spacing: tuple[SpacingFault, ...] = ()
    case_flags: tuple[CaseFlag, ...] = ()
    guard: Guard | None = None
    quirks: tuple[Quirk, ...] = ()
    confidence: dict[str, Evidence] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        require_coverage(self.labels, self.annotated_classes)
        require_case_rules(
            self.labels,
            self.annotated_classes,
            present_only=self.annotation_rule == "present",
            always=self.always_annotated,
            by_case=self.annotated_by_case,
        )
        lesions = [*self.tumour_free, *self.tumour_present, *(free.tumour for free in self.tumour_free_cases)]
        if organs := [name for name in lesions if not class_info(require_classes((name,))[0]).is_lesion]:
            raise ValueError(f"tumour_free names {organs}, which are no tumour or cyst classes")
        require_label_fields(self.layout, self.labels, self.label_origin, self.label_model)
        require_known_variants(self.sources, self.variants)
        if self.case_ids:
            known = {*self.case_ids, *(fault.case for fault in self.faulty_cases)}
            require_listed_ids(known, self._ids_spoken_of())
        for field in self.confidence:
            if field.split(".")[0] not in type(self).model_fields:
                raise ValueError(f"confidence speaks of {field!r}, which is no field of a card")
        return self

    def _ids_spoken_of(self) -> dict[str, tuple[str, ...]]:
        """Return field -> native ids, for every field that speaks of single cases of this set."""
        fields: dict[str, tuple[str, ...]] = {"unlabelled_case_ids": self.unlabelled_case_ids}
        for name in ("annotated_by_case", "unreliable_spacing", "case_flags", "label_quality", "same_scan", "overlaps"):
            fields[name] = tuple(one for part in getattr(self, name) for one in part.case_ids)
        return fields | {f"official_splits.{name}": ids for name, ids in self.official_splits.items()}

    @cached_property
    def faults(self) -> dict[str, FaultyCase]:
        """Faulty cases by native id."""
        return {fault.case: fault for fault in self.faulty_cases}

    @cached_property
    def value_names(self) -> dict[int, str]:
        """Declared native values with their names, for checks and messages."""
        return {value: label.name for value, label in self.labels.items()}

    @cached_property
    def split_pairs(self) -> tuple[tuple[str, str], ...]:
        """Every (right, left) pair that some value leaves to be told apart by side, in order of value."""
        return tuple(dict.fromkeys(value.split for value in self.labels.values() if value.split is not None))

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the label variants, the default first."""
        return (self.label_variant, *self.label_variants)

    def annotated_in(self, native_id: str, present_values: frozenset[int] | None) -> tuple[str, ...]:
        """Return the classes annotated in one labelled case, present or absent, in channel order.

        present_values: native values of the structures that the case ships, which annotation_rule present needs; None
        where the label covers all declared values by rule. Raises ValueError when the rule needs them and gets None.
        """
        annotated = self.annotated_classes
        for rule in self.annotated_by_case:
            if native_id in rule.case_ids:
                annotated = rule.annotated_classes
        if self.annotation_rule == "declared":
            return known_classes(self.labels, annotated, None, ())
        if present_values is None:
            raise ValueError(
                f"{self.id}/{native_id}: annotation_rule is present, so the reader {self.layout.reader!r} must say "
                "which values the case ships (RawCase.present_values)"
            )
        return known_classes(self.labels, annotated, present_values, self.always_annotated)

    def spacing_fault(self, native_id: str) -> SpacingFault | None:
        """Return why the spacing of a case is false, None where nothing of the kind is known."""
        return next((fault for fault in self.unreliable_spacing if native_id in fault.case_ids), None)

    def flags_of(self, native_id: str) -> tuple[str, ...]:
        """Return the warnings that a case carries into the lake, each as `code: reason`; spacing faults are apart."""
        labelled = bool(self.labels) and native_id not in self.unlabelled_case_ids
        declared = [
            f"{flag.code}: {flag.reason}"
            for flag in self.case_flags
            if native_id in flag.case_ids or (labelled and not flag.case_ids)
        ]
        automatic = [name for name, quality in self.quality_in(native_id).items() if quality == "automatic"]
        if labelled and automatic:
            declared.append(f"automatic_labels: {', '.join(automatic)}")
        return tuple(declared)

    def quality_in(self, native_id: str) -> dict[str, str]:
        """Return class -> how its label was made in a case; classes that nobody commented on are not in it."""
        found = {}
        for part in self.label_quality:
            if not part.case_ids or native_id in part.case_ids:
                found.update(dict.fromkeys(part.classes, part.quality))
        return {name: found[name] for name in class_names() if name in found}

    def with_variant(self, name: str) -> Card:
        """Return the card with the labels of variant `name`; the default's name returns the card itself."""
        if name == self.label_variant:
            return self
        if name not in self.label_variants:
            raise KeyError(f"card {self.id}: no label variant {name!r}; known: {', '.join(self.variants)}")
        variant = self.label_variants[name]
        return Card(
            **{
                **{field: getattr(self, field) for field in type(self).model_fields},
                "layout": variant.layout_from(self.layout),
                "labels": variant.labels,
                "annotated_classes": variant.annotated_classes,
                "annotated_by_case": variant.annotated_by_case,
                "case_ids": self.case_ids if variant.case_ids is None else variant.case_ids,
                "unlabelled_case_ids": variant.unlabelled_case_ids,
                "case_flags": variant.case_flags,
                "label_variant": name,
                "label_variants": {},
                "sources": [
                    source.model_copy(update={"variants": ()})
                    for source in self.sources
                    if not source.variants or name in source.variants
                ],
            }
        )

    def digest(self) -> str:
        """Return a SHA-256 over what decides the bytes and the rows of a case; wording, sources and quirks stay out.

        Rephrasing a note must not make every case of a data set look new, so only fields that change a result count,
        and a field at its default counts like one that the card leaves out.
        """
        codes = {"__all__": {"code", "case_ids"}}
        facts = self.model_dump(
            mode="json",
            exclude_defaults=True,
            include={
                "id": True,
                "role": True,
                "licence": {"spdx", "non_commercial"},
                "layout": set(Layout.model_fields) - {"tree"},
                "labels": True,
                "annotated_classes": True,
                "annotation_rule": True,
                "always_annotated": True,
                "annotated_by_case": {"__all__": {"case_ids", "annotated_classes"}},
                "label_origin": True,
                "label_model": True,
                "label_quality": {"__all__": {"case_ids", "classes", "quality"}},
                "tumour_free": True,
                "unlabelled_case_ids": True,
                "unreliable_spacing": {"__all__": {"case_ids"}},
                "case_flags": codes,
            },
        )
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def list_cards(folder: Path | None = None) -> list[str]:
    """Return the ids of all cards in `folder`, or in all `card_folders()`, sorted."""
    return list(list_card_files(folder))


def load_card(card_id: str, folder: Path | None = None, *, variant: str | None = None) -> Card:
    """Return the card `card_id` of `folder`, or of whichever of `card_folders()` declares it.

    variant: name of the label variant, None for the card's default. Raises KeyError with the nearest ids for an unknown
    card or variant, ValueError naming card and field for a wrong one.
    """
    path = find_card_file(card_id, folder)
    card = _read_card(card_id, path, path.stat().st_mtime_ns)
    return card if variant is None else card.with_variant(variant)


@lru_cache(maxsize=256)
def _read_card(card_id: str, path: Path, modified_ns: int) -> Card:  # noqa: ARG001 - an edited file is read again
    try:
        return Card.model_validate(read_card_file(card_id, path))
    except ValidationError as error:
        raise ValueError(_explain(card_id, error)) from None


def _explain(card_id: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "(whole card)"
        found = "" if isinstance(problem["input"], dict | BaseModel) else f" (found {problem['input']!r})"
        lines.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}{found}")
    return f"card {card_id}: " + "; ".join(lines)
