"""What the lake holds: cases, arrays, files and bytes, by data set and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from catalog.files import Found
from catalog.garbage import find_orphans
from catalog.lake import Lake
from catalog.lake_write import LABELS, VOLUMES
from catalog.references import StoredVersion, stored_versions
from catalog.tables import Tables

Kind = Literal["image", "labels", "levels", "notes", "orphans", "other"]
KINDS: tuple[Kind, ...] = ("image", "labels", "levels", "notes", "orphans", "other")
"""Full resolution, class bits, coarser levels of both, notes beside cases, what no row names, what is not ours."""

VOXEL_BYTES = 2
"""Of an image in memory: int16."""


@dataclass(frozen=True)
class DatasetStats:
    """What one data set takes.

    cases, versions: superseded and withdrawn ones too. arrays: stored levels of images and bits.
    bytes, files: by kind. image_ratio: bytes of the images in memory per byte stored; None without an image.
    """

    dataset: str
    cases: int
    versions: int
    arrays: int
    files: dict[Kind, int]
    bytes: dict[Kind, int]
    image_ratio: float | None


@dataclass(frozen=True)
class LakeStats:
    """What a lake takes: by data set, and its tables."""

    datasets: list[DatasetStats]
    table_files: int
    table_bytes: int


def lake_stats(tables: Tables, lake: Lake) -> LakeStats:
    """Return what is in the lake now, from one listing of its files; LakeUnreachable for a store out of reach."""
    known = stored_versions(tables, tables.versions())
    files = lake.files.list(VOLUMES)
    orphans = {name for orphan in find_orphans(files, known) for name in orphan.names}
    by_dataset: dict[str, dict[str, Found]] = {version.dataset: {} for version in known.values()}
    for name, found in files.items():
        by_dataset.setdefault(name.split("/")[1], {})[name] = found
    of_tables = lake.files.list("tables")
    return LakeStats(
        [_dataset_stats(dataset, by_dataset[dataset], known, orphans) for dataset in sorted(by_dataset)],
        table_files=len(of_tables),
        table_bytes=sum(found.size for found in of_tables.values()),
    )


def _dataset_stats(
    dataset: str, files: Mapping[str, Found], known: Mapping[str, StoredVersion], orphans: set[str]
) -> DatasetStats:
    kinds = {name: "orphans" if name in orphans else _kind_of(name, known) for name in files}
    count = Counter(kinds.values())
    total: Counter[Kind] = Counter()
    for name, kind in kinds.items():
        total[kind] += files[name].size
    versions = [version for version in known.values() if version.dataset == dataset]
    raw = sum(VOXEL_BYTES * x * y * z for x, y, z in (version.shape for version in versions))
    return DatasetStats(
        dataset,
        cases=len({version.case_id for version in versions}),
        versions=len(versions),
        arrays=sum("/c/" in name for name, kind in kinds.items() if kind in ("image", "labels", "levels")),
        files={kind: count[kind] for kind in KINDS},
        bytes={kind: total[kind] for kind in KINDS},
        image_ratio=raw / total["image"] if total["image"] else None,
    )


def _kind_of(name: str, known: Mapping[str, StoredVersion]) -> Kind:
    """Return the kind of a file that is no orphan: `volumes/<data set>/<case>/<version>.zarr/...` or a note beside."""
    parts = name.split("/")
    if "/".join(parts[:4]) not in known:
        return "notes" if len(parts) == 4 and parts[3].endswith(".json") else "other"
    inside = parts[4:]
    kind: Kind = "image"
    if inside[0] == LABELS:
        kind, inside = "labels", inside[2:]
    return "levels" if inside and inside[0].isdigit() and inside[0] != "0" else kind
