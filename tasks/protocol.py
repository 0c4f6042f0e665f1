"""Protocols of challenges: which values a label map has, what is scored of it, at which tolerance, and how averaged.

A protocol is a YAML file in `tasks/protocols`, typed and checked against the taxonomy and the card of its data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from datasets_registry.card_ids import CaseIds
from datasets_registry.card_parts import Level, Part, require_classes
from datasets_registry.cards import load_card
from datasets_registry.nearest import nearest_text

FOLDER = Path(__file__).with_name("protocols")

ProtocolFigure = Literal["dsc", "nsd", "hd95_mm", "asd_mm", "volume_error_ml"]


class ProtocolValue(Part):
    """One value of the challenge's label maps, and the classes of ours that are painted with it."""

    name: str
    classes: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _classes_exist(self) -> ProtocolValue:
        require_classes(self.classes)
        return self


class Region(Part):
    """What is scored as one: the voxels of these values. averaged: whether it enters the average."""

    name: str
    values: tuple[int, ...] = Field(min_length=1)
    averaged: bool = True


class Submission(Part):
    """The form of an upload. file: name of a case's label map, `{id}` its native id. folder: of the task, inside the
    archive. cases: native ids of the test scans, none where the data set's labelled scans are other ones."""

    file: str
    folder: str | None = None
    cases: CaseIds | None = None

    @model_validator(mode="after")
    def _names_cases_apart(self) -> Submission:
        if "{id}" not in self.file or not self.file.endswith(".nii.gz"):
            raise ValueError(f"submission.file {self.file!r}: expected a name such as liver_{{id}}.nii.gz")
        return self

    def name(self, native_id: str) -> str:
        """Return the file name of a case; an id that brings the name's beginning along does not get it twice."""
        before, _, after = self.file.partition("{id}")
        return f"{before}{native_id.removeprefix(before)}{after}"


class Confidence(Part):
    """How sure a part of the protocol is, and from where it is known."""

    level: Level
    text: str


class Protocol(Part):
    """One challenge. labels: value -> meaning, painted in the order of values, so that a higher one lies on top.

    tolerance_mm: of the NSD. average: `mean_of_regions` is the mean of the regions' means over cases, `mean_of_pairs`
    that of all pairs of case and region.
    """

    id: str
    title: str
    dataset: str
    citation: str
    labels: dict[int, ProtocolValue]
    regions: tuple[Region, ...] = Field(min_length=1)
    figures: tuple[ProtocolFigure, ...] = Field(min_length=1)
    tolerance_mm: float | None = Field(None, gt=0)
    average: Literal["mean_of_regions", "mean_of_pairs"]
    submission: Submission
    confidence: dict[str, Confidence]

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if "nsd" in self.figures and self.tolerance_mm is None:
            raise ValueError("figures hold nsd: give its tolerance_mm")
        for region in self.regions:
            if unknown := sorted(set(region.values) - set(self.labels)):
                raise ValueError(
                    f"region {region.name}: values {unknown} are not among the labels {sorted(self.labels)}"
                )
        parts = {"labels", "regions", "figures", "average", "submission"} | ({"tolerance_mm"} & self.model_fields_set)
        if set(self.confidence) != parts:
            raise ValueError(f"confidence is of {sorted(self.confidence)}, expected one for each of {sorted(parts)}")
        card = load_card(self.dataset)
        for value, label in self.labels.items():
            declared = card.labels.get(value)
            if declared is None or not set(label.classes) <= set(declared.reached):
                found = "no such value" if declared is None else f"classes {list(declared.reached)}"
                raise ValueError(
                    f"labels: value {value} is {list(label.classes)}, but the card {self.dataset} has {found}"
                )
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that its values are painted with."""
        return tuple(dict.fromkeys(name for label in self.labels.values() for name in label.classes))


def list_protocols() -> list[str]:
    """Return the ids of all protocols, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_protocol(name: str) -> Protocol:
    """Return the protocol called `name`; KeyError with the nearest names, ValueError for one that is inconsistent."""
    path = FOLDER / f"{name}.yaml"
    if name not in list_protocols():
        raise KeyError(f"unknown protocol {name!r}; {nearest_text(name, list_protocols())}")
    return read_protocol(path)


def read_protocol(path: Path) -> Protocol:
    """Return the protocol of a YAML file; ValueError names the file, the field and what is wrong with it."""
    try:
        protocol = Protocol.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path.name}, {where or 'protocol'}: {first['msg']}; see tasks/protocol.py") from error
    if protocol.id != path.stem:
        raise ValueError(f"{path.name}: its id is {protocol.id!r}, expected the file's name")
    return protocol
