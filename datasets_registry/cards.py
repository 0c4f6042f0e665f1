"""Cards: what is known about one data set, declared in `cards/<id>.yaml` and checked when loaded."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from datasets_registry.taxonomy import class_info

CARDS = Path(__file__).with_name("cards")
Level = Literal["seen", "inferred", "recalled"]
"""seen: a named source says so; inferred: follows from seen facts; recalled: from memory, to be verified."""


def _expand_ids(value: Any) -> Any:
    """Write out ranges: "0061-0080" becomes twenty ids of the same width; any other entry is kept as it is."""
    if not isinstance(value, list):
        return value
    ids: list[str] = []
    for entry in value:
        span = re.fullmatch(r"(\d+)-(\d+)", str(entry))
        if span is None:
            ids.append(str(entry))
            continue
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise ValueError(f"range {entry!r} runs backwards")
        ids.extend(str(number).zfill(len(span[1])) for number in range(first, last + 1))
    return ids


def _require_classes(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        try:
            class_info(name)
        except KeyError as error:
            raise ValueError(error.args[0]) from None
    if len(set(names)) != len(names):
        raise ValueError(f"a class is named twice in {list(names)}")
    return names


CaseIds = Annotated[tuple[str, ...], BeforeValidator(_expand_ids)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Licence(_Part):
    """Terms of use; None means that no source states it, and is never read as permission."""

    spdx: str | None
    non_commercial: bool | None
    note: str | None = None
    confidence: Level | None = None


class Citation(_Part):
    """What to cite."""

    short: str | None
    doi: str | None


class Source(_Part):
    """One file to fetch. md5, sha256 and bytes come from third-party code; the first real download is the authority."""

    name: str
    url: str | None = None
    record: str | None = None
    bytes: int | None = None
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    note: str | None = None


class Layout(_Part):
    """Where images and labels lie under the extracted root.

    Globs are relative to the root, `{a,b}` alternatives allowed. The first group of `case_id_regex`, searched in the
    relative path of an image, is the native id; `label_id_regex` (default: the same) does so for labels. `case_id` is
    the one native id of a set that holds a single scan.
    """

    reader: str
    tree: str
    image_glob: str
    label_glob: str | None = None
    case_id_regex: str | None = None
    label_id_regex: str | None = None
    case_id: str | None = None
    options: dict[str, str | int | float | bool] = {}

    @model_validator(mode="after")
    def _patterns_work(self) -> Layout:
        for field in ("case_id_regex", "label_id_regex"):
            pattern = getattr(self, field)
            if pattern is not None and re.compile(pattern).groups != 1:
                raise ValueError(f"{field} {pattern!r} needs exactly one group, the native id")
        return self


class LabelValue(_Part):
    """What one native value means: `classes` are true where it occurs, and one of `split` (right, left), by side."""

    name: str
    classes: tuple[str, ...] = ()
    split: tuple[str, str] | None = None

    @model_validator(mode="after")
    def _classes_exist(self) -> LabelValue:
        _require_classes(self.classes)
        if self.split is not None:
            right, left = (class_info(name) for name in _require_classes(self.split))
            if right.side != "right" or right.mirror != left.name:
                raise ValueError(f"split {list(self.split)} is not a pair in the order right, left")
        return self

    @property
    def reached(self) -> tuple[str, ...]:
        """Every class this value can set."""
        return (*self.classes, *(self.split or ()))


def _require_coverage(labels: dict[int, LabelValue], annotated: tuple[str, ...]) -> None:
    if 0 in labels:
        raise ValueError("value 0 is background and is not declared")
    reached = {name for value in labels.values() for name in value.reached}
    if reached != set(annotated):
        raise ValueError(
            f"annotated_classes and labels disagree: only in annotated_classes {sorted(set(annotated) - reached)}, "
            f"only in labels {sorted(reached - set(annotated))}"
        )


class LabelVariant(_Part):
    """Another label file for the same scans; `Card.with_variant` puts it in the place of the default.

    image_glob: only where the variant's archive arranges the images in another way too.
    """

    label_glob: str
    image_glob: str | None = None
    labels: dict[int, LabelValue]
    annotated_classes: tuple[str, ...]
    unlabelled_case_ids: CaseIds = ()
    note: str | None = None
    confidence: Level

    @model_validator(mode="after")
    def _consistent(self) -> LabelVariant:
        _require_coverage(self.labels, _require_classes(self.annotated_classes))
        return self


class FaultyCase(_Part):
    """A case that must not be read, and who reported why."""

    case: str
    reason: str
    source: str | None
    confidence: Level


class Quirk(_Part):
    """A peculiarity of the files and how it is handled."""

    fact: str
    confidence: Level
    sources: tuple[str, ...] = ()


class Overlap(_Part):
    """Another data set that holds some of the same scans."""

    dataset: str
    relation: str
    confidence: Level


class Evidence(_Part):
    """How well a field of the card is known."""

    level: Level
    text: str


class Card(_Part):
    """Everything the factory knows about one data set.

    labels: native value -> meaning; value 0 is background and never declared. annotated_classes: classes whose presence
    AND absence the annotators recorded in every labelled case; any other class is unknown, never background.
    tumour_free: lesion classes that no patient of the set has (a statement about people, not about labels).
    unlabelled_case_ids: cases shipped without a label on purpose. label_variant: which label file `labels` describes.
    """

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    role: Literal["train", "external"]
    access: Literal["open", "registration", "application", "private"]
    licence: Licence
    citation: Citation
    landing_page: str | None
    sources: tuple[Source, ...] = ()
    layout: Layout
    labels: dict[int, LabelValue] = {}
    label_variant: str = "official"
    label_variants: dict[str, LabelVariant] = {}
    annotated_classes: tuple[str, ...] = ()
    label_origin: Literal["human", "model"] | None
    label_model: str | None = None
    tumour_free: tuple[str, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    unlabelled_case_ids: CaseIds = ()
    faulty_cases: tuple[FaultyCase, ...] = ()
    quirks: tuple[Quirk, ...] = ()
    confidence: dict[str, Evidence] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        _require_coverage(self.labels, _require_classes(self.annotated_classes))
        lesions = [name for name in _require_classes(self.tumour_free) if not class_info(name).is_lesion]
        if lesions:
            raise ValueError(f"tumour_free names {lesions}, which are no tumour or cyst classes")
        if bool(self.labels) != (self.layout.label_glob is not None):
            raise ValueError("labels and layout.label_glob are given together or not at all")
        if bool(self.labels) != (self.label_origin is not None):
            raise ValueError("label_origin is human or model for a set with labels, null for one without")
        if (self.label_origin == "model") != (self.label_model is not None):
            raise ValueError(f"label_origin {self.label_origin!r} does not fit label_model {self.label_model!r}")
        if (self.layout.case_id is None) == (self.layout.case_id_regex is None) and self.layout.reader != "local":
            raise ValueError("layout gives either case_id_regex or a constant case_id")
        for field in self.confidence:
            if field.split(".")[0] not in type(self).model_fields:
                raise ValueError(f"confidence speaks of {field!r}, which is no field of a card")
        return self

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

    def with_variant(self, name: str) -> Card:
        """Return the card with the labels of variant `name`; the default's name returns the card itself."""
        if name == self.label_variant:
            return self
        if name not in self.label_variants:
            known = ", ".join((self.label_variant, *self.label_variants))
            raise KeyError(f"card {self.id}: no label variant {name!r}; known: {known}")
        variant = self.label_variants[name]
        globs = {"label_glob": variant.label_glob, "image_glob": variant.image_glob or self.layout.image_glob}
        return Card(
            **{
                **{field: getattr(self, field) for field in type(self).model_fields},
                "layout": self.layout.model_copy(update=globs),
                "labels": variant.labels,
                "annotated_classes": variant.annotated_classes,
                "unlabelled_case_ids": list(variant.unlabelled_case_ids),
                "label_variant": name,
                "label_variants": {},
            }
        )

    def digest(self) -> str:
        """Return a SHA-256 over what decides the bytes and the rows of a case; wording, sources and quirks stay out.

        Rephrasing a note must not make every case of a data set look new, so only fields that change a result count.
        """
        facts = self.model_dump(
            mode="json",
            include={
                "id": True,
                "role": True,
                "licence": {"spdx", "non_commercial"},
                "layout": {
                    "reader",
                    "image_glob",
                    "label_glob",
                    "case_id_regex",
                    "label_id_regex",
                    "case_id",
                    "options",
                },
                "labels": True,
                "annotated_classes": True,
                "label_origin": True,
                "label_model": True,
                "tumour_free": True,
                "unlabelled_case_ids": True,
            },
        )
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def list_cards(folder: Path = CARDS) -> list[str]:
    """Return the ids of all cards in `folder`, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_card(card_id: str, folder: Path = CARDS) -> Card:
    """Return the card `card_id` of `folder`.

    Raises KeyError with the nearest ids for an unknown card, ValueError naming card and field for a wrong one.
    """
    path = folder / f"{card_id}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(card_id, list_cards(folder), n=3, cutoff=0.3)
        raise KeyError(f"no card {card_id!r}; nearest: {', '.join(near) or 'none'}; cards are {folder.name}/<id>.yaml")
    return _read_card(card_id, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read_card(card_id: str, path: Path, modified_ns: int) -> Card:  # noqa: ARG001 - an edited file is read again
    try:
        card = Card.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ValueError(_explain(card_id, error)) from None
    except yaml.YAMLError as error:
        raise ValueError(f"card {card_id}: not readable as YAML: {error}") from None
    if card.id != card_id:
        raise ValueError(f"card {card_id}: field id is {card.id!r}, expected the file's name {card_id!r}; rename one")
    return card


def _explain(card_id: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "(whole card)"
        found = "" if isinstance(problem["input"], dict | BaseModel) else f" (found {problem['input']!r})"
        lines.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}{found}")
    return f"card {card_id}: " + "; ".join(lines)
