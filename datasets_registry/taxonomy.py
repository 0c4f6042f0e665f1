"""The class table: the 32 classes of the published model in its order (`taxonomy.yaml`), then those of one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from datasets_registry.nearest import nearest_text
from datasets_registry.taxonomy_own import TAXONOMY_VARIABLE, Kind, read_own_rows

LESIONS: tuple[Kind, ...] = ("tumour", "cyst")


@dataclass(frozen=True)
class ClassInfo:
    """One class of the taxonomy.

    index: counted from 1, to 32 the numbers of the published model; `channel` = index - 1 is the class's bit.
    parents: names of the classes it lies inside (any one of them). mirror: the partner on the other side.
    components: connected parts expected, None for any number. volume_ml, hu_mean: plausible adult ranges of
    volume and of mean HU.
    What cleaning of predicted masks reads: margin_mm, how far outside its parents it may reach; min_ml, the volume
    below which a part of it is removed; holes, whether its cavities are filled; lies, the side of the body's middle on
    which an organ without a partner usually lies.
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
    margin_mm: float = 0.0
    min_ml: float = 0.0
    holes: bool = False
    lies: Literal["right", "left"] | None = None

    @property
    def channel(self) -> int:
        """Position in bit words and in the network's output, counted from 0."""
        return self.index - 1

    @property
    def is_lesion(self) -> bool:
        """Whether the class is a tumour or a cyst, scored per patient as well as per voxel."""
        return self.kind in LESIONS


def all_classes() -> tuple[ClassInfo, ...]:
    """Return every class in index order: the published ones, then those of one's own that CTFACTORY_TAXONOMY adds.

    Raises FileNotFoundError for a table that is not there, ValueError for one that does not go on from the others.
    """
    return tuple(_table(os.environ.get(TAXONOMY_VARIABLE, "")).values())


@cache
def _table(own: str) -> dict[str, ClassInfo]:
    """Return name -> class of the package's table and of the file `own`, if it names one."""
    content = yaml.safe_load(Path(__file__).with_name("taxonomy.yaml").read_text())
    rows: list[dict[str, Any]] = content["classes"]
    if own.strip():
        rows = rows + read_own_rows(Path(own).expanduser(), rows)
    classes = tuple(ClassInfo(**_with_tuples(content["cleaning"][row["kind"]] | row)) for row in rows)
    if [info.index for info in classes] != list(range(1, len(classes) + 1)):
        raise ValueError(f"taxonomy.yaml: indices {[info.index for info in classes]} do not count up from 1")
    return {info.name: info for info in classes}


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def class_names() -> tuple[str, ...]:
    """Return the class names in channel order."""
    return tuple(info.name for info in all_classes())


def class_info(name: str) -> ClassInfo:
    """Return the class called `name`; a KeyError lists the nearest names."""
    try:
        return _table(os.environ.get(TAXONOMY_VARIABLE, ""))[name]
    except KeyError:
        raise KeyError(f"unknown class {name!r}; {nearest_text(name, class_names())}") from None


@cache
def same_finding(name: str) -> tuple[str, ...]:
    """Return `name` and the classes whose prediction counts as finding it too, in channel order."""
    groups = yaml.safe_load(Path(__file__).with_name("taxonomy.yaml").read_text())["same_finding"]
    found = next((group for group in groups if name in group), [name])
    return tuple(sorted(found, key=lambda one: class_info(one).index))


def channels(names: tuple[str, ...] | list[str]) -> list[int]:
    """Return the channel of each name, in the order given."""
    return [class_info(name).channel for name in names]


def _spelling(text: str) -> str:
    return "_".join(text.lower().replace("_", " ").split())


def named_class(text: str) -> ClassInfo:
    """Return the class of that name or title, in any case: `liver_tumor`, `Liver tumor`, `inferior vena cava`.

    Raises KeyError listing the nearest names.
    """
    wanted = _spelling(text)
    found = next((one for one in all_classes() if wanted in (one.name, _spelling(one.title))), None)
    if found is not None:
        return found
    try:
        return class_info(text)
    except KeyError as error:
        raise KeyError(f"{error.args[0]}; {TAXONOMY_VARIABLE} may name a file with classes of your own") from None


def places_of(asked: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where in `names` each class asked for stands, by name or title; a KeyError lists the nearest of `names`.

    names: those of a model, which may know fewer classes than the taxonomy, or others.
    """
    place = {name: number for number, name in enumerate(names)}
    titles = {_spelling(info.title): info.name for info in all_classes()}
    known = [text if text in place else titles.get(_spelling(text), _spelling(text)) for text in asked]
    for text, name in zip(asked, known, strict=True):
        if name not in place:
            raise KeyError(f"this model has no class {text!r}; {nearest_text(name, names)}; it has {', '.join(names)}")
    return [place[name] for name in known]
