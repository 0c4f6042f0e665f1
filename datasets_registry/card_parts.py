"""The nouns of a card: licence, layout, label values, and what is declared about single cases. All are frozen."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datasets_registry.card_ids import CaseIds
from datasets_registry.taxonomy import class_info

Level = Literal["seen", "inferred", "recalled"]
"""seen: a named source says so; inferred: follows from seen facts; recalled: from memory, to be verified."""

Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""A short machine-readable name, as in quarantine and in the flags of a case."""


def require_classes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names` when each is a class of the taxonomy and none occurs twice; ValueError otherwise."""
    for name in names:
        try:
            class_info(name)
        except KeyError as error:
            raise ValueError(error.args[0]) from None
    if len(set(names)) != len(names):
        raise ValueError(f"a class is named twice in {list(names)}")
    return names


class Part(BaseModel):
    """A piece of a card; a field that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Licence(Part):
    """Terms of use; None means that no source states it, and is never read as permission."""

    spdx: str | None
    non_commercial: bool | None
    note: str | None = None
    confidence: Level | None = None


class Citation(Part):
    """What to cite."""

    short: str | None
    doi: str | None
    also: str | None = None


class Counts(Part):
    """Scans as the publishers count them; None where nobody states a number."""

    total: int | None = None
    labelled: int | None = None
    unlabelled: int | None = None
    train: int | None = None
    val: int | None = None
    test: int | None = None
    note: str | None = None


class Layout(Part):
    """Where images and labels lie under the extracted root.

    Globs are relative to the root, `{a,b}` alternatives allowed. The first group of `case_id_regex`, searched in the
    relative path of an image, is the native id; `label_id_regex` (default: the same) does so for labels. `case_id` is
    the one native id of a set that holds a single scan. unlabelled_glob: further images, shipped without labels.
    """

    reader: str
    tree: str
    image_glob: str
    label_glob: str | None = None
    unlabelled_glob: str | None = None
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


class LabelValue(Part):
    """What one native value means: `classes` are true where it occurs, and one of `split` (right, left), by side.

    optional: a patient may lack this structure, so its missing file says nothing about other classes. aliases: other
    names of its file, folder, ROI or segment, as fnmatch patterns; upper and lower case are the same. unassigned: its
    voxels belong to an organ that the label does not tell, so no organ that touches them is known in that case.
    """

    name: str
    classes: tuple[str, ...] = ()
    split: tuple[str, str] | None = None
    optional: bool = False
    aliases: tuple[str, ...] = ()
    unassigned: bool = False

    @model_validator(mode="after")
    def _classes_exist(self) -> LabelValue:
        require_classes(self.classes)
        if self.split is not None:
            right, left = (class_info(name) for name in require_classes(self.split))
            if right.side != "right" or right.mirror != left.name:
                raise ValueError(f"split {list(self.split)} is not a pair in the order right, left")
        return self

    @property
    def reached(self) -> tuple[str, ...]:
        """Every class this value can set."""
        return (*self.classes, *(self.split or ()))

    @property
    def named_first(self) -> tuple[str, ...]:
        """The classes that this structure is the annotation of: the first of `classes`, and both of a split.

        Further classes are unions (a tumour voxel is also organ) and tell nothing about who looked for them. A value
        with both (`kidney tumour`, sides told apart) annotates its first class; its pair is the union.
        """
        return self.classes[:1] or (self.split or ())


class CaseRule(Part):
    """Which classes were annotated in some cases, where they differ from the rest of the set."""

    case_ids: CaseIds
    annotated_classes: tuple[str, ...]
    reason: str | None = None
    confidence: Level

    @model_validator(mode="after")
    def _classes_exist(self) -> CaseRule:
        require_classes(self.annotated_classes)
        return self


class LabelQuality(Part):
    """How the labels of some classes were made; no case_ids: in every labelled case.

    manual: drawn by people. automatic: made by an algorithm, unreviewed. model_assisted: made by a model and reviewed.
    restricted: means something narrower or wider than the class, so score it apart.
    """

    classes: tuple[str, ...]
    quality: Literal["manual", "automatic", "model_assisted", "restricted"]
    reason: str
    case_ids: CaseIds = ()
    confidence: Level

    @model_validator(mode="after")
    def _classes_exist(self) -> LabelQuality:
        require_classes(self.classes)
        return self


class FaultyCase(Part):
    """A case that must not be read, and who reported why."""

    case: str
    reason: str
    source: str | None
    confidence: Level


class RefusedCases(Part):
    """Numbers that are no cases of this set although their files look alike, such as the MRI scans of a mixed set."""

    case_ids: CaseIds
    code: Code
    reason: str
    confidence: Level


class SpacingFault(Part):
    """Cases whose headers state a false voxel spacing: no volumes in ml and no distances in mm can be trusted there."""

    case_ids: CaseIds
    reason: str
    confidence: Level


class CaseFlag(Part):
    """A warning that travels with some cases into the lake; no case_ids: with every labelled case."""

    code: Code
    reason: str
    case_ids: CaseIds = ()
    confidence: Level


class SameScan(Part):
    """Cases of this set that are one and the same scan."""

    case_ids: CaseIds
    reason: str
    confidence: Level


class TumourFreeCases(Part):
    """Patients of a set with lesions who are known to have none of a class."""

    tumour: str
    case_ids: CaseIds
    confidence: Level


class Quirk(Part):
    """A peculiarity of the files. handling: what the factory does about it, or why nothing can be done."""

    fact: str
    confidence: Level
    sources: tuple[str, ...] = ()
    handling: str | None = None


class Overlap(Part):
    """Another data set that holds some of the same scans.

    case_ids and other_case_ids: where the numbers are known, the k-th case here is the k-th of `other_case_ids` there.
    """

    dataset: str
    relation: str
    confidence: Level
    case_ids: CaseIds = ()
    other_case_ids: CaseIds = ()

    @model_validator(mode="after")
    def _pairs_match(self) -> Overlap:
        if len(self.case_ids) != len(self.other_case_ids):
            raise ValueError(
                f"{len(self.case_ids)} case_ids against {len(self.other_case_ids)} other_case_ids; they go in pairs"
            )
        return self

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Native id here and there of each scan known to be the same."""
        return tuple(zip(self.case_ids, self.other_case_ids, strict=True))


class Guard(Part):
    """What tells a wrong archive, taken for this set by mistake, before a case is read.

    forbidden_values: label values that this set never holds. max_median_ml: value -> the largest plausible median
    volume over the labels that hold it.
    """

    forbidden_values: tuple[int, ...] = ()
    max_median_ml: dict[int, float] = {}
    reason: str
    confidence: Level


class Evidence(Part):
    """How well a field of the card is known."""

    level: Level
    text: str
