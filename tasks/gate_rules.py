"""The gates as their YAML file states them: bars by class group, the champion's margin, what each target allows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from datasets_registry.nearest import nearest_text
from datasets_registry.taxonomy import all_classes, class_names
from datasets_registry.taxonomy_own import Kind

FOLDER = Path(__file__).with_name("gates")
Figure = Literal["dsc", "nsd", "worst_dsc", "worst_nsd", "sensitivity", "specificity"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Group(_Strict):
    """Classes that share bars, named by kind or one by one. bars: figure -> lowest value that passes, 0 to 1."""

    name: str
    kinds: tuple[Kind, ...] = ()
    classes: tuple[str, ...] = ()
    bars: dict[Figure, float] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_classes(self) -> Group:
        if not self.kinds and not self.classes:
            raise ValueError(f"group {self.name!r}: no classes, expected `kinds` or `classes`")
        if unknown := sorted(set(self.classes) - set(class_names())):
            raise ValueError(f"group {self.name!r}: class {unknown[0]!r}, {nearest_text(unknown[0], class_names())}")
        if beyond := {figure: bar for figure, bar in self.bars.items() if not 0 <= bar <= 1}:
            raise ValueError(f"group {self.name!r}: bars {beyond}, expected 0 to 1")
        return self

    def members(self) -> tuple[str, ...]:
        """Return the names of the group's classes, in class order."""
        return tuple(info.name for info in all_classes() if info.kind in self.kinds or info.name in self.classes)


class AgainstChampion(_Strict):
    """drop: how far the lower end of the 95 % interval of a class's paired difference of DSC may lie below 0."""

    drop: float = Field(0.02, ge=0, le=1)


class Target(_Strict):
    """What a use allows; see `gates/default.yaml`."""

    non_commercial: bool
    offline_encoder: bool


class GateRules(_Strict):
    """Every gate a version has to pass. name: of the file, as it was asked for."""

    name: str
    target: str
    approval: bool = False
    approval_hours: PositiveFloat = 72
    cohorts: tuple[str, ...] = ()
    groups: tuple[Group, ...] = Field(min_length=1)
    champion: AgainstChampion = AgainstChampion()
    targets: dict[str, Target]

    @model_validator(mode="after")
    def _knows_its_target(self) -> GateRules:
        self.allowed(self.target)
        return self

    def allowed(self, target: str) -> Target:
        """Return what a target allows; ValueError names the nearest for one that the file does not have."""
        if target not in self.targets:
            raise ValueError(f"target {target!r}: {nearest_text(target, list(self.targets))}")
        return self.targets[target]


def load_gates(name: str) -> GateRules:
    """Return the gates of a file: the name of one in `tasks/gates`, or a path.

    Raises FileNotFoundError where there is none, and ValueError naming the keys that are unknown, missing or wrong.
    """
    own = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    path = FOLDER / f"{name}.yaml" if name in own else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"gates {name!r}: no such file; expected {', '.join(own)} or the path of a YAML file")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found {type(found).__name__}, expected the keys of tasks/gates/default.yaml")
    try:
        return GateRules(name=name, **found)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()]
        known = ", ".join(field for field in GateRules.model_fields if field != "name")
        raise ValueError(f"{path}: {'; '.join(wrong)}; its keys are {known}, see tasks/gates/default.yaml") from error
