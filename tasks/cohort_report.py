"""The page of a pseudo-label run: every case with its scores and decisions, in one file that needs no other."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from datasets_registry.taxonomy import class_info
from tasks.cohort_pictures import CohortPicture
from tasks.cohort_plots import DECISION_COLOURS, distribution_svg

DECISIONS = ("accept", "review", "reject", "undecided")
SCORES = ("boundary_entropy", "agreement", "removed_share")
"""Of the JSON column `scores`, what the table shows beside columns of its own."""


@dataclass(frozen=True, eq=False)
class CohortReport:
    """What the page says.

    rows: label rows, one annotation a case, with the columns of `LABEL_COLUMNS`. outcomes: case -> (outcome, remark),
    of all cases, those without labels too. human: class_name, ml and hu_mean of the human labels to compare with.
    figures: headline figures. facts: how the run was made. files: case -> link, from the page, to its picture.
    """

    title: str
    rows: pd.DataFrame
    outcomes: Mapping[str, tuple[str, str]]
    human: pd.DataFrame
    figures: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[CohortPicture] = ()


LABEL_COLUMNS = (
    *("case_id", "class_name", "annotation", "voxels", "ml", "hu_mean", "components", "touches_border"),
    *("quality_score", "scores", "expected_dsc", "decision", "reason", "cleaning", "independent", "manifest"),
)


def write_cohort_report(report: CohortReport, path: Path) -> Path:
    """Write the page to `path`, aside first, and return the path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("cohort_report.html").render(
        report=report,
        data=page_data(report),
        classes=_class_cards(report),
        whole=[one for one in report.pictures if one.class_name is None],
        decisions=DECISIONS,
        colours=DECISION_COLOURS,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_text(html, encoding="utf-8")
    aside.replace(path)
    return path


def page_data(report: CohortReport) -> dict[str, Any]:
    """Return what the page's table is made of: columns of equal length, texts by number, nothing that is no JSON."""
    rows = report.rows.sort_values(["case_id", "class_name"])
    cases = sorted(report.outcomes)
    names = sorted(set(rows["class_name"]), key=lambda name: class_info(name).index)
    texts = _Texts()
    scores = [json.loads(text) if isinstance(text, str) else {} for text in rows["scores"]]
    place_of, class_of = ({name: number for number, name in enumerate(known)} for known in (cases, names))
    columns = {
        "case": [place_of[name] for name in rows["case_id"]],
        "cls": [class_of[name] for name in rows["class_name"]],
        "decision": [DECISIONS.index(_decision(value)) for value in rows["decision"]],
        "dsc": _numbers(rows["expected_dsc"]),
        "prob": _numbers(rows["quality_score"]),
        **{name: _numbers([one.get(name) for one in scores]) for name in SCORES},
        "ml": _numbers(rows["ml"]),
        "z": _numbers(
            [max((abs(z) for z in (one.get("z") or {}).values() if z is not None), default=None) for one in scores]
        ),
        "border": [int(bool(value)) for value in rows["touches_border"]],
        "reason": [texts.number(value) for value in rows["reason"]],
        "flags": [texts.number("; ".join(one.get("flags") or ())) for one in scores],
    }
    seen = {case_id for case_id, value in zip(rows["case_id"], rows["independent"], strict=True) if value is False}
    return {
        "cases": cases,
        "outcomes": [report.outcomes[name][0] for name in cases],
        "remarks": [report.outcomes[name][1] for name in cases],
        "seen": [int(name in seen) for name in cases],
        "classes": [{"name": name, "title": class_info(name).title} for name in names],
        "decisions": DECISIONS,
        "colours": [DECISION_COLOURS[name] for name in DECISIONS],
        "texts": texts.known,
        "rows": columns,
    }


class _Texts:
    """Texts that occur again and again, once each."""

    def __init__(self) -> None:
        self.known: list[str] = [""]
        self._numbers = {"": 0}

    def number(self, text: object) -> int:
        if not isinstance(text, str):
            return 0
        if text not in self._numbers:
            self._numbers[text] = len(self.known)
            self.known.append(text)
        return self._numbers[text]


def _numbers(values: Any) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else round(float(value), 4) for value in values]


def _decision(value: object) -> str:
    return value if isinstance(value, str) else "undecided"


def _class_cards(report: CohortReport) -> list[dict[str, Any]]:
    """Return one card a class: counts by decision, plots against human labels, pictures."""
    cards = []
    rows = report.rows.assign(decision=[_decision(value) for value in report.rows["decision"]])
    for name in sorted(set(rows["class_name"]), key=lambda name: class_info(name).index):
        info, own = class_info(name), rows[rows["class_name"] == name]
        human = report.human[report.human["class_name"] == name]
        parts = {decision: own[own["decision"] == decision] for decision in DECISIONS}
        by = {column: {k: list(v[column]) for k, v in parts.items()} for column in ("ml", "hu_mean", "expected_dsc")}
        cards.append(
            {
                "name": name,
                "title": info.title,
                "colour": info.colour,
                "counts": {decision: len(part) for decision, part in parts.items() if len(part)},
                "absent": int((own["voxels"] == 0).sum()),
                "plots": [
                    distribution_svg("volume", list(human["ml"]), by["ml"], unit="ml", logarithmic=True),
                    distribution_svg("mean HU", list(human["hu_mean"]), by["hu_mean"], unit="HU"),
                    distribution_svg("expected DSC", [], by["expected_dsc"], limits=(0, 1)),
                ],
                "pictures": [one for one in report.pictures if one.class_name == name],
            }
        )
    return cards
