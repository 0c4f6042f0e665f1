"""Agreement study: how alike two or more label sets of the same scans are, class by class.

As in the study of annotators and model of the CLIP-Driven Universal Model (arXiv 2301.00785; AI-Dr1, AI-Dr2, Dr1-Dr2):
each pair of sets is scored on the cases that both have, in the classes that both looked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from imaging.bits import WORD_BITS, Bits
from imaging.metrics import MaskScores, score_bits
from tasks.agreement_sets import Labels, LabelSet, check_same_grid
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.settings import Settings
from tasks.statistics import bootstrap_mean

SCORES = ("dsc", "nsd", "hd95_mm", "asd_mm", "volume_error_ml")
COLUMNS = ("case_id", "patient", "pair", "class_name", *SCORES, "first_ml", "second_ml")


@dataclass(frozen=True)
class Study:
    """Which label sets are compared, on which cases.

    sets: two or more, by different names. dataset: only cases of this data set of the lake. classes: only these.
    """

    sets: tuple[LabelSet, ...]
    dataset: str | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = [one.name for one in self.sets]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"label sets {names}: two or more of different names are compared")
        bad = [name for name in names if not re.fullmatch(r"[A-Za-z0-9_.-]+", name)]
        if bad:
            raise ValueError(f"label set {bad[0]!r}: names are of letters, digits, dots, - and _")
        if len({type(one) for one in self.sets}) > 1:
            raise ValueError("annotations of the lake and folders do not lie on one grid; compare either")


@dataclass(frozen=True)
class CaseOfStudy:
    """A case, its patient, and which of the study's sets have it."""

    case_id: str
    patient: str
    sets: tuple[LabelSet, ...]


def pair_name(one: LabelSet, other: LabelSet) -> str:
    """Return the name of a pair of sets."""
    return f"{one.name} - {other.name}"


def cases_of(study: Study, settings: Settings) -> list[CaseOfStudy]:
    """Return the cases that at least two sets have; ValueError where there is none, with what each set has."""
    held = {one.name: one.cases(settings, study.dataset) for one in study.sets}
    patients = {case_id: patient for cases in held.values() for case_id, patient in cases.items()}
    found = []
    for case_id, patient in sorted(patients.items()):
        sets = tuple(one for one in study.sets if case_id in held[one.name])
        if len(sets) > 1:
            found.append(CaseOfStudy(case_id, patient, sets))
    if not found:
        told = ", ".join(f"{name} has {len(ids)}, such as {min(ids, default='none')}" for name, ids in held.items())
        raise ValueError(f"no case is in two of the label sets: {told}; a case is known by its id, in folders by file")
    return found


def score_case(case: CaseOfStudy, study: Study, settings: Settings) -> list[dict[str, Any]]:
    """Return one row for each pair of sets and class that both looked for (COLUMNS).

    The volume error is the second's ml minus the first's. DSC and NSD are NaN where both masks are empty.
    """
    labels = {one.name: one.read(settings, case.case_id) for one in case.sets}
    rows: list[dict[str, Any]] = []
    for one, other in combinations(case.sets, 2):
        scores = _pair_scores(labels[one.name], labels[other.name], study.classes, settings.nsd_tolerance_mm)
        for name, found in scores.items():
            figures = asdict(found)
            rows.append(
                {
                    "case_id": case.case_id,
                    "patient": case.patient,
                    "pair": pair_name(one, other),
                    "class_name": name,
                    **{score: figures[score] for score in SCORES},
                    "first_ml": found.truth_ml,
                    "second_ml": found.predicted_ml,
                }
            )
    return rows


def score_study(cases: Sequence[CaseOfStudy], study: Study, settings: Settings) -> pd.DataFrame:
    """Return the rows of `score_case` of all cases."""
    results = map_cases(
        partial(score_case, study=study, settings=settings.for_workers()),
        list(cases),
        settings,
        CaseProgress("agreement", len(cases)),
    )
    lost = [item for item in results if isinstance(item, Lost)]
    if lost:
        raise RuntimeError(f"{lost[0].case.case_id}: {lost[0].found} ({lost[0].reason}), and {len(lost) - 1} more")
    rows = [row for found in results if not isinstance(found, Lost) for row in found]
    if not rows:
        raise ValueError("no class was looked for by both sets of any pair; see --classes and --values")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def agreement_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return means and 95 % intervals over patients of DSC and NSD per pair and class, in the order of the rows.

    cases: compared. both_empty: in which neither set has the class; they count in no mean. scored: the others.
    """
    rows = []
    for (pair, name), found in scores.groupby(["pair", "class_name"], sort=False):
        row: dict[str, Any] = {"pair": pair, "class_name": name, "cases": len(found)}
        row["scored"] = int(found["dsc"].notna().sum())
        row["both_empty"] = row["cases"] - row["scored"]
        for score in ("dsc", "nsd"):
            interval = bootstrap_mean(found[score].to_numpy(), list(found["patient"]))
            row |= {score: interval.mean, f"{score}_low": interval.low, f"{score}_high": interval.high}
        row["patients"] = int(found.loc[found["dsc"].notna(), "patient"].nunique())
        row["hd95_mm"], row["asd_mm"] = float(found["hd95_mm"].mean()), float(found["asd_mm"].mean())
        row["with_distance"] = int(found["hd95_mm"].notna().sum())
        row["volume_error_ml"] = float(found["volume_error_ml"].mean())
        rows.append(row)
    return pd.DataFrame(rows)


def _pair_scores(
    one: Labels, other: Labels, classes: Sequence[str] | None, tolerance_mm: float
) -> dict[str, MaskScores]:
    check_same_grid(one, other)
    names = [name for name in one.channels if name in other.channels and (classes is None or name in classes)]
    # the second set's channels are put where the first has them
    aligned = _moved(other, {name: one.channels[name] for name in names}, len(one.bits))
    channels = [one.channels[name] for name in names]
    scores = score_bits(one.bits, aligned, channels, one.spacing_mm, tolerance_mm)
    return dict(zip(names, (scores[channel] for channel in channels), strict=True))


def _moved(labels: Labels, places: dict[str, int], words: int) -> Bits:
    """Return the bits of `labels` with each class at its place of `places`."""
    if all(labels.channels[name] == place for name, place in places.items()) and len(labels.bits) == words:
        return labels.bits
    moved = np.zeros_like(labels.bits, shape=(words, *labels.bits.shape[1:]))
    for name, place in places.items():
        word, bit = divmod(labels.channels[name], WORD_BITS)
        moved[place // WORD_BITS] |= ((labels.bits[word] >> np.uint32(bit)) & np.uint32(1)) << np.uint32(
            place % WORD_BITS
        )
    return moved


score_study_task = as_task(score_study, "agreement")
