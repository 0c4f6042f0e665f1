"""How human labels look: size, place, parts and HU of every class, from the `labels` table at one version."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasets_registry.taxonomy import all_classes, class_info
from tasks.plausibility import LEAST_VOXELS
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

LEAST_CASES = 5
"""Human labels of a class from which on they say what is usual; below, the wide ranges of the taxonomy do."""
MOST_CASES = 5000
"""Cases that are looked at, evenly over the table: more would not move a median."""
FLOORS = {"volume": 0.15, "hu_mean": 10.0, "components": 0.5, "mm": 6.0}
"""The least spread that is believed: of ln(ml), HU, parts and mm."""
RANGE_Z = 3.0
"""A bound of the taxonomy's ranges counts as so many spreads from their middle."""


@dataclass(frozen=True)
class Usual:
    """What is usual of one figure: its median, its robust spread (like a standard deviation), and of how many cases."""

    median: float
    spread: float
    cases: int

    def z(self, value: float) -> float:
        """Return how many spreads a value lies above the median."""
        return (value - self.median) / self.spread


@dataclass(frozen=True)
class HumanReference:
    """Figures of the human labels of a lake.

    table_versions: of the tables they come from. figures: class -> figure (volume in ln(ml), hu_mean, components) ->
    usual; of labels that the scan's border does not cut. border: class -> (labels that touch the border, labels).
    offsets: class -> another class -> how far the middle of the class lies from the other's, along R, A, S in mm, of
    the cases where both are whole. present: class -> (labels with a voxel, labels). reach_mm: class -> half the usual
    size of its box along R, A, S.
    """

    table_versions: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Usual]] = field(default_factory=dict)
    border: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    offsets: Mapping[str, Mapping[str, tuple[Usual, Usual, Usual]]] = field(default_factory=dict)
    present: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    reach_mm: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    def usual(self, class_name: str, figure: str) -> Usual | None:
        """Return what is usual of a figure of a class, by the taxonomy where human labels are few; None: unknown."""
        found = self.figures.get(class_name, {}).get(figure)
        return found if found is not None else _by_taxonomy(class_name, figure)


def human_reference(
    workspace: Workspace, at_versions: Mapping[str, int] | None = None, *, without: Collection[str] = ()
) -> HumanReference:
    """Return the reference of the annotated labels of the lake, computed once a process for each version of the tables.

    at_versions: of the tables, None for now; a run that writes labels keeps to those of its start. without: ids of
    cases that do not count, such as those a calibration measures on.
    """
    versions = dict(at_versions or workspace.tables.versions())
    seen = tuple(sorted((name, versions[name]) for name in ("cases", "labels", "twins", "splits") if name in versions))
    return _reference(place_of(workspace.settings), seen, frozenset(without))


def place_of(settings: Settings) -> str:
    """Return where a lake is as text, of which a cache can make a key."""
    return settings.model_dump_json(include={"workspace", "lake_root"})


@lru_cache(maxsize=4)
def _reference(place: str, versions: tuple[tuple[str, int], ...], without: frozenset[str]) -> HumanReference:
    workspace = open_workspace(Settings.model_validate_json(place))
    at = dict(versions)
    columns = ["class_name", "label_origin", "voxels", "ml", "hu_mean", "bbox", "centroid_mm", "components"]
    labels = workspace.tables.labels(state="annotated", columns=[*columns, "touches_border"], at_versions=at)
    labels = labels[(labels["label_origin"] == "human") & ~labels["case_id"].isin(without)]
    cases = workspace.tables.cases(columns=["spacing_mm"], at_versions=at)
    return summarise(labels, dict(zip(cases["case_id"], cases["spacing_mm"], strict=True)), at)


def summarise(
    labels: pd.DataFrame, spacing_mm: Mapping[str, Any], versions: Mapping[str, int] | None = None
) -> HumanReference:
    """Return the reference of label rows; spacing_mm: of each case's grid, along R, A, S."""
    ids = labels["case_id"].drop_duplicates().to_numpy()
    if len(ids) > MOST_CASES:
        ids = ids[np.linspace(0, len(ids) - 1, MOST_CASES).astype(int)]
        labels = labels[labels["case_id"].isin(ids)]
    there = labels[labels["voxels"] > 0]
    whole = there[~there["touches_border"].astype(bool)]
    return HumanReference(
        dict(versions or {}),
        {str(name): _figures(rows) for name, rows in whole.groupby("class_name", observed=True)},
        {
            str(name): (int(rows["touches_border"].sum()), len(rows))
            for name, rows in there.groupby("class_name", observed=True)
        },
        _offsets(whole),
        {
            str(name): (int((rows["voxels"] > 0).sum()), len(rows))
            for name, rows in labels.groupby("class_name", observed=True)
        },
        {str(name): _reach(rows, spacing_mm) for name, rows in whole.groupby("class_name", observed=True)},
    )


def _figures(rows: pd.DataFrame) -> dict[str, Usual]:
    seen = rows[rows["voxels"] >= LEAST_VOXELS]
    found = {
        "volume": _usual(np.log(rows["ml"].to_numpy(dtype=np.float64)), FLOORS["volume"]),
        "hu_mean": _usual(seen["hu_mean"].to_numpy(dtype=np.float64), FLOORS["hu_mean"]),
        "components": _usual(rows["components"].to_numpy(dtype=np.float64), FLOORS["components"]),
    }
    return {name: usual for name, usual in found.items() if usual is not None}


def _usual(values: NDArray[np.float64], floor: float) -> Usual | None:
    values = values[np.isfinite(values)]
    if len(values) < LEAST_CASES:
        return None
    median = float(np.median(values))
    # 1.4826 MAD is the standard deviation of normal values; of few values it is too small as often as not
    spread = 1.4826 * float(np.median(np.abs(values - median))) * (1 + 3 / len(values))
    return Usual(median, max(spread, floor), len(values))


def _offsets(whole: pd.DataFrame) -> dict[str, dict[str, tuple[Usual, Usual, Usual]]]:
    names = [info.name for info in all_classes() if not info.is_lesion]
    cases = {case_id: number for number, case_id in enumerate(whole["case_id"].drop_duplicates())}
    places = np.full((len(names), len(cases), 3), np.nan)
    index = {name: number for number, name in enumerate(names)}
    for case_id, name, centre in zip(whole["case_id"], whole["class_name"], whole["centroid_mm"], strict=True):
        if name in index:
            places[index[name], cases[case_id]] = centre
    found: dict[str, dict[str, tuple[Usual, Usual, Usual]]] = {}
    for one in names:
        for other in names:
            apart = places[index[one]] - places[index[other]]  # (cases, 3)
            along = [_usual(apart[:, axis], FLOORS["mm"]) for axis in range(3)]
            if one != other and along[0] is not None and along[1] is not None and along[2] is not None:
                found.setdefault(one, {})[other] = (along[0], along[1], along[2])
    return found


def _reach(rows: pd.DataFrame, spacing_mm: Mapping[str, Any]) -> tuple[float, float, float]:
    boxes = np.array(rows["bbox"].tolist(), dtype=np.float64)  # (n, 6)
    grids = np.array([list(spacing_mm[case_id]) for case_id in rows["case_id"]])
    x, y, z = np.median((boxes[:, 3:] - boxes[:, :3]) * grids / 2, axis=0)
    return float(x), float(y), float(z)


def _by_taxonomy(class_name: str, figure: str) -> Usual | None:
    info = class_info(class_name)
    if figure == "components":
        return None if info.components is None else Usual(info.components, 1.0, 0)
    if figure == "volume":
        low, high = (math.log(value) for value in info.volume_ml)
    elif figure == "hu_mean":
        low, high = info.hu_mean
    else:
        return None
    return Usual((low + high) / 2, (high - low) / 2 / RANGE_Z, 0)
