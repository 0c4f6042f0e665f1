"""Which cases a cohort's page shows: the worst, the median and the best, of all and of each class, as pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from catalog.errors import LakeDamage
from datasets_registry.taxonomy import class_info
from imaging.overlay import overlay_strip
from tasks.prediction import case_image
from tasks.workspace import Workspace, row_dicts

PLACES = ("worst", "median", "best")
WHOLE_HEIGHT, CLASS_HEIGHT = 300, 170
"""Pixels of the pictures of a whole case, and of those of one class."""


@dataclass(frozen=True)
class CohortPicture:
    """One strip of three planes. place: worst, median or best; class_name: None for the whole case."""

    place: str
    class_name: str | None
    case_id: str
    caption: str
    jpeg: bytes

    @property
    def data_url(self) -> str:
        """The picture as it stands in a page."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def rank_score(rows: pd.DataFrame) -> pd.Series:
    """Return what labels are ranked by: the expected DSC, or the mean probability where there is no calibration."""
    return rows["expected_dsc"].astype(float).fillna(rows["quality_score"].astype(float))


def worst_median_best(scores: pd.Series) -> dict[str, Any]:
    """Return which of the index stand at the worst, median and best score; each once, ties by the index's order.

    scores: by case. With two cases there is no median, with one only a worst. What has no score is left out.
    """
    ordered = scores.dropna().sort_index().sort_values(kind="stable")
    if ordered.empty:
        return {}
    places = {"worst": 0, "median": (len(ordered) - 1) // 2, "best": len(ordered) - 1}
    found: dict[str, Any] = {}
    for name in ("worst", "best", "median"):
        if ordered.index[places[name]] not in found.values():
            found[name] = ordered.index[places[name]]
    return {name: found[name] for name in PLACES if name in found}


def choose(rows: pd.DataFrame, *, per_class: bool) -> list[tuple[str, str | None, str]]:
    """Return (place, class or None, case) of every picture. rows: label rows of one annotation a case."""
    found = rows[rows["voxels"] > 0]
    scored = found.assign(rank=rank_score(found))
    whole = worst_median_best(scored.groupby("case_id")["rank"].mean())
    chosen: list[tuple[str, str | None, str]] = [(place, None, case_id) for place, case_id in whole.items()]
    if per_class:
        for name in sorted(set(scored["class_name"]), key=lambda name: class_info(name).index):
            ranked = scored[scored["class_name"] == name].set_index("case_id")["rank"]
            chosen += [(place, name, case_id) for place, case_id in worst_median_best(ranked).items()]
    return chosen


def draw_pictures(
    workspace: Workspace,
    rows: pd.DataFrame,
    *,
    per_class: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> list[CohortPicture]:
    """Return the pictures of a cohort, drawn from the lake; each scan is read once.

    rows: label rows with manifest. A scan that cannot be read has no picture, and `tell` is called with the reason.
    """
    chosen = choose(rows, per_class=per_class)
    made: dict[tuple[str, str | None], CohortPicture] = {}
    cases = {row["case_id"]: row for row in row_dicts(workspace.tables.cases(case_ids={one for *_, one in chosen}))}
    for case_id, case in cases.items():
        try:
            made |= _of_case(workspace, case, rows[rows["case_id"] == case_id], [p for p in chosen if p[2] == case_id])
        except LakeDamage as problem:
            tell(f"no picture: {problem}")
    return [made[(place, name)] for place, name, _ in chosen if (place, name) in made]


def _of_case(
    workspace: Workspace, case: dict[str, Any], rows: pd.DataFrame, wanted: Iterable[tuple[str, str | None, str]]
) -> dict[tuple[str, str | None], CohortPicture]:
    first = rows.iloc[0]
    stored = workspace.lake.open_bits({**case, "manifest": first["manifest"]}, str(first["annotation"]))
    bits, image = np.asarray(stored.read()), case_image(workspace, case)
    infos = [class_info(name) for name in rows["class_name"]]
    shown = {info.channel: (info.title, info.colour) for info in infos}
    scores = dict(zip(rows["class_name"], rank_score(rows), strict=True))
    made = {}
    for place, name, case_id in wanted:
        focus = None if name is None else class_info(name).channel
        height = WHOLE_HEIGHT if name is None else CLASS_HEIGHT
        score = float(np.nanmean(list(scores.values()))) if name is None else scores[name]
        caption = f"{place}: {case_id}, {_what(rows)} {score:.3f}"
        jpeg = overlay_strip(image, bits, shown, focus=focus, height=height)
        made[(place, name)] = CohortPicture(place, name, case_id, caption, jpeg)
    return made


def _what(rows: pd.DataFrame) -> str:
    return "mean probability" if rows["expected_dsc"].isna().all() else "expected DSC"
