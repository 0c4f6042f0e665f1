"""What the tables say is in the lake: the one list that verify, garbage collection and figures go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catalog.lake_write import LABELS
from catalog.manifest import FileEntry, Manifest
from catalog.tables import Tables


@dataclass(frozen=True)
class StoredVersion:
    """One version of a case as its newest rows describe it, superseded, withdrawn or current.

    shape: voxels along X, Y, Z. manifest: of the image and every annotation that a row names. annotations: their
    names, those of older rows of this version too.
    """

    case_id: str
    dataset: str
    path: str
    shape: tuple[int, int, int]
    manifest: Manifest
    annotations: frozenset[str]


def stored_versions(tables: Tables, at_versions: Mapping[str, int]) -> dict[str, StoredVersion]:
    """Return every version of every case by path, superseded and withdrawn ones too, as of these table versions."""
    columns = ("case_id", "dataset", "path", "manifest", "shape_x", "shape_y", "shape_z")
    cases = tables.cases(columns=columns, history=True, at_versions=at_versions)
    rows = tables.label_rows(columns=["manifest"], history=True, at_versions=at_versions)
    # Arrow keeps each manifest once, not once a class: text only after one row an annotation is left.
    labels = rows.select(["path", "annotation", "manifest"]).to_pandas().drop_duplicates(["path", "annotation"])
    files: dict[str, dict[str, FileEntry]] = {}
    names: dict[str, set[str]] = {}
    about: dict[str, tuple[str, str, tuple[int, int, int]]] = {}
    # A later row of a version comes after the earlier ones and describes its files as they are now.
    for case_id, dataset, path, text, x, y, z in zip(*(cases[name] for name in columns), strict=True):
        about[path] = (case_id, dataset, (int(x), int(y), int(z)))
        files[path] = dict(Manifest.from_json(text).files)
        of_labels = (file.split("/")[1] for file in files[path] if file.startswith(f"{LABELS}/"))
        names.setdefault(path, set()).update(of_labels)
    for path, annotation, text in zip(labels["path"], labels["annotation"], labels["manifest"], strict=True):
        for name, entry in Manifest.from_json(text).files.items():
            files[path].setdefault(name, entry)
        names[path].add(annotation)
    return {
        path: StoredVersion(case_id, dataset, path, shape, Manifest(files[path]), frozenset(names[path]))
        for path, (case_id, dataset, shape) in sorted(about.items())
    }
