"""What a pseudo-label run is asked for: a YAML file, or what the command line says, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from datasets_registry.nearest import nearest_text
from datasets_registry.taxonomy import named_class

DEFAULT_MODEL = "models:/universal@champion"


@dataclass(frozen=True)
class ExportSpec:
    """Which files are written for each case.

    formats, profile: see `tasks/export.py` and `tasks/licences.py`. source: folder of the files that the cohort was
    ingested from, which DICOM formats refer to.
    """

    formats: tuple[str, ...] = ("nifti",)
    profile: str = "research"
    source: str | None = None


@dataclass(frozen=True)
class BarsSpec:
    """Expected DSC from which a label is accepted, and below which it is rejected; None takes the settings' bar."""

    accept: float | None = None
    reject: float | None = None

    def __post_init__(self) -> None:
        if self.accept is not None and self.reject is not None and self.accept < self.reject:
            raise ValueError(f"bars: accept {self.accept:g} is below reject {self.reject:g}; expected the other way")


@dataclass(frozen=True)
class ReportSpec:
    """What the page of the run shows. pictures: overlays of the worst, median and best case of each class too."""

    title: str | None = None
    pictures: bool = True


@dataclass(frozen=True)
class PseudoLabelSpec:
    """One pseudo-label run. models: several are an ensemble. classes: None for all that the model was trained on.

    cleaning: rules as CTFACTORY_CLEANING has them (`all`, `none`, `-holes`), None for those of the settings.
    """

    cohort: str
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    classes: tuple[str, ...] | None = None
    cleaning: str | None = None
    bars: BarsSpec = field(default_factory=BarsSpec)
    export: ExportSpec = field(default_factory=ExportSpec)
    report: ReportSpec = field(default_factory=ReportSpec)

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models: found none, expected at least one such as models:/universal@champion")
        if len(set(self.models)) != len(self.models):
            raise ValueError(f"models: {', '.join(self.models)} repeats one, which would weigh twice; give each once")
        if self.classes is not None and not self.classes:
            raise ValueError("classes: found none, expected names of classes; leave the key out for all of the model")


def read_spec(file: Path) -> dict[str, Any]:
    """Return the values of a YAML file. FileNotFoundError, or ValueError where it holds no keys."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; expected a YAML file with keys such as cohort and models")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{file}: found {type(values).__name__}, expected keys such as `cohort: incoming`")
    return {str(key): value for key, value in values.items()}


def make_spec(
    values: Mapping[str, Any],
    where: str = "spec",
    *,
    cohort: str | None = None,
    models: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> PseudoLabelSpec:
    """Return the spec of plain values; what the command line gives (cohort, models, classes) wins over them.

    Raises KeyError for an unknown key, naming the nearest, and for an unknown class; ValueError for a value of another
    kind than expected.
    """
    given = {"cohort": cohort, "models": models, "classes": classes}
    merged = {**values, **{key: value for key, value in given.items() if value is not None}}
    if not merged.get("cohort"):
        raise ValueError(f"{where}: found no cohort, expected the name of a data set of the lake")
    spec = _built(PseudoLabelSpec, merged, where)
    if not isinstance(spec, PseudoLabelSpec):
        raise TypeError(f"{where}: built a {type(spec).__name__}")
    return spec


_PARTS: dict[str, type[Any]] = {"bars": BarsSpec, "export": ExportSpec, "report": ReportSpec}
_NAMES = ("models", "classes", "formats")


def _built(kind: type[Any], values: object, where: str) -> object:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: found {values!r}, expected keys: {', '.join(one.name for one in fields(kind))}")
    known = [one.name for one in fields(kind)]
    made: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{where}: {key}"
        if key not in known:
            raise KeyError(f"{where}: unknown key {key!r}; {nearest_text(str(key), known)}; keys: {', '.join(known)}")
        if key in _PARTS:
            made[key] = _built(_PARTS[key], value, place)
        elif key in _NAMES and value is not None:
            made[key] = _names(value, place)
        elif key == "cleaning" and isinstance(value, list | tuple):
            made[key] = ",".join(_names(value, place))
        else:
            made[key] = _checked(kind, key, value, place)
    if made.get("classes") is not None:
        made["classes"] = tuple(named_class(name).name for name in made["classes"])
    return kind(**made)


def _names(value: object, place: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"{place}: found {value!r}, expected a list of names")
    return tuple(texts)


def _checked(kind: type[Any], key: str, value: Any, place: str) -> Any:
    """Return a plain value; ValueError where it is not of the kind its key takes."""
    if kind is BarsSpec:
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        if value is not None and not number:
            raise ValueError(f"{place}: found {value!r}, expected an expected DSC between 0 and 1")
        return value if value is None else float(value)
    if key == "pictures":
        if not isinstance(value, bool):
            raise ValueError(f"{place}: found {value!r}, expected true or false")
        return value
    if not (isinstance(value, str) or value is None):
        raise ValueError(f"{place}: found {value!r}, expected a name")
    return value


def spec_values(spec: Any) -> dict[str, Any]:
    """Return a spec as JSON-able values, as it is written down with the run."""
    plain: dict[str, Any] = {}
    for one in fields(spec):
        value = getattr(spec, one.name)
        plain[one.name] = (
            spec_values(value) if is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        )
    return plain
