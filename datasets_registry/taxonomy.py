"""The class table: what the 32 classes are, in the order of the published model. It exists once, in `taxonomy.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from datasets_registry.nearest import nearest_text

Kind = Literal["organ", "vessel", "tumour", "cyst"]
LESIONS: tuple[Kind, ...] = ("tumour", "cyst")


@dataclass(frozen=True)
class ClassInfo:
    """One class of the taxonomy.

    index: 1-based number of the published model; `channel` = index - 1 is the class's bit and logit.
    parents: names of the classes it lies inside (any one of them). mirror: the partner on the other side.
    components: connected parts expected, None for any number. volume_ml, hu_mean: plausible adult ranges of
    volume and of mean HU.
    """

    index: int
    name: str
    title: str
    kind: Kind
    volume_ml: tuple[float, float]
    hu_mean: tuple[float, float]
    colour: str
    components: int | None = None
    side: Literal["right", "left"] | None = None
    mirror: str | None = None
    parents: tuple[str, ...] = ()

    @property
    def channel(self) -> int:
        """Position in bit words and in the network's output, counted from 0."""
        return self.index - 1

    @property
    def is_lesion(self) -> bool:
        """Whether the class is a tumour or a cyst, scored per patient as well as per voxel."""
        return self.kind in LESIONS


@cache
def all_classes() -> tuple[ClassInfo, ...]:
    """Return every class in index order."""
    rows: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("taxonomy.yaml").read_text())["classes"]
    classes = tuple(ClassInfo(**_with_tuples(row)) for row in rows)
    if [info.index for info in classes] != list(range(1, len(classes) + 1)):
        raise ValueError(f"taxonomy.yaml: indices {[info.index for info in classes]} do not count up from 1")
    return classes


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


@cache
def _by_name() -> dict[str, ClassInfo]:
    return {info.name: info for info in all_classes()}


def class_names() -> tuple[str, ...]:
    """Return the class names in channel order."""
    return tuple(_by_name())


def class_info(name: str) -> ClassInfo:
    """Return the class called `name`; a KeyError lists the nearest names."""
    try:
        return _by_name()[name]
    except KeyError:
        raise KeyError(f"unknown class {name!r}; {nearest_text(name, class_names())}") from None


def channels(names: tuple[str, ...] | list[str]) -> list[int]:
    """Return the channel of each name, in the order given."""
    return [class_info(name).channel for name in names]
