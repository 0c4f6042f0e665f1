"""Coded names of the classes for DICOM: what, which side, where (`dicom_codes.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from datasets_registry.taxonomy import class_info

Code = tuple[str, str, str]
"""Value, meaning and scheme ("SCT" for SNOMED CT)."""
OWN_SCHEME = "99CTFACTORY"
"""A private scheme (PS3.3 8.2: it begins with 99) for classes of one's own, which have no SNOMED CT code here."""


@dataclass(frozen=True)
class ClassCodes:
    """How DICOM calls a class. modifier: its side, None for none. region: where a lesion or vessel lies."""

    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None


def class_codes(name: str) -> ClassCodes:
    """Return the codes of a class; one of one's own gets its name and title in a private scheme. KeyError: no class."""
    info = class_info(name)
    table = _table()
    category = _code(table["categories"]["lesion" if info.is_lesion else "anatomy"])
    modifier = None if info.side is None else _code(table["sides"][info.side])
    row = table["classes"].get(name)
    if row is None:
        return ClassCodes(category, (name[:16], info.title, OWN_SCHEME), modifier)
    region = row.get("region")
    return ClassCodes(category, _code(row["type"]), modifier, None if region is None else _code(region))


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("dicom_codes.yaml").read_text())
    return table


def _code(pair: list[str]) -> Code:
    return (pair[0], pair[1], "SCT")
