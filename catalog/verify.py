"""Integrity of a lake: every file that a committed row names is there, as long as it was, with the bytes it had."""

from __future__ import annotations

import json
from dataclasses import dataclass

from catalog.errors import LakeDamage
from catalog.lake import Lake
from catalog.lake_write import LABELS
from catalog.manifest import METADATA_NAME, Manifest, find_damage
from catalog.tables import Tables


@dataclass(frozen=True)
class Damage:
    """One file that is not what its row says; `file` is relative to the lake's root."""

    case_id: str
    file: str
    found: str
    expected: str

    def __str__(self) -> str:
        return str(LakeDamage(self.case_id, self.file, self.found, self.expected))


def verify(tables: Tables, lake: Lake, read_data: bool = False) -> list[Damage]:
    """Return all damage to committed cases and labels, superseded versions too; an empty list is a sound lake.

    read_data: compare the SHA-256 of all bytes; without it, that files are there with their lengths, and the
    SHA-256 of the small metadata files.
    """
    cases = tables.cases(history=True)
    labels = tables.labels(columns=["manifest"], history=True).drop_duplicates(["case_id", "ingest_key", "annotation"])
    manifests: dict[tuple[str, str], dict[str, Manifest]] = {}
    # The newest row of a folder is the one that describes it.
    for case_id, path, text in zip(cases["case_id"], cases["path"], cases["manifest"], strict=True):
        manifests[(case_id, path)] = {"": Manifest.from_json(text)}
    for case_id, path, name, text in zip(
        labels["case_id"], labels["path"], labels["annotation"], labels["manifest"], strict=True
    ):
        manifests[(case_id, path)][name] = Manifest.from_json(text)
    found: dict[tuple[str, str], Damage] = {}
    for (case_id, path), parts in manifests.items():
        files = {name: entry for part in reversed(parts.values()) for name, entry in part.files.items()}
        for damage in find_damage(case_id, lake.root / path, path, Manifest(files), read_data):
            found[(case_id, damage.file)] = Damage(case_id, damage.file, damage.found, damage.expected)
        names = sorted({file.split("/")[1] for file in files if file.startswith(f"{LABELS}/")})
        unlisted = _unlisted(lake, path, names)
        if unlisted:
            file = f"{path}/{LABELS}/{METADATA_NAME}"
            found[(case_id, file)] = Damage(case_id, file, f"no entry for {unlisted}", f"entries for {names}")
    return [found[key] for key in sorted(found)]


def _unlisted(lake: Lake, path: str, names: list[str]) -> list[str]:
    """Return the annotations that the case's list of labels, which viewers go by, does not hold."""
    if not names:
        return []
    try:
        index = json.loads((lake.root / path / LABELS / METADATA_NAME).read_text(encoding="utf-8"))
        listed = index["attributes"]["ome"]["labels"]
    except (OSError, ValueError, KeyError, TypeError):
        listed = []
    return [name for name in names if name not in listed]
