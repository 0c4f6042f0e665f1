"""From scores to the DSC to be expected: a monotone map, fitted on held-out cases with human labels.

Three steps, none of which can turn a doubt into a better mark:
1. Doubts (`doubts`) are added up with weights of 0 or more, fitted to 1 - DSC by least squares.
2. A falling step function from that sum to DSC, over all classes together (isotonic regression).
3. For a class with n cases: the pooled function, moved by the mean of what it is off there, times n / (n + 3); of that
   and the class's own isotonic regression a mean, with the weight n / (n + 20) on the class's own. A class with few
   cases so stays near the pooled function.
An empty mask has no doubts: for it the share of empty masks of its class that were right is expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression

from datasets_registry.taxonomy import class_info
from tasks.label_scores import LabelScores

DOUBTS = ("improbable", "entropy", "disagreement", "odd", "removed")
OFFSET_CASES, OWN_CASES, EMPTY_CASES = 3.0, 20.0, 4.0
"""How many cases of a class weigh as much as all classes together: for its offset, its own map, its empty masks."""
LEAST_OF_CLASS = 3
"""Cases of a class below which nothing is said about it, and no own map is fitted."""
LEAST_PAIRS = 10
MOST_ODD = 8.0
FORMAT = 1

Knots = tuple[tuple[float, ...], tuple[float, ...]]
"""Places and values of a piecewise linear function, constant beyond its ends."""


@dataclass(frozen=True)
class ClassMap:
    """What is known of one class: its cases with a mask, its offset, its own map, and empty masks (right, all)."""

    cases: int
    offset: float
    own: Knots | None
    empty_right: int
    empty: int


class TooFewMasks(ValueError):
    """A calibration asked for on fewer masks than can carry one."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted map. run_id: MLflow run it is kept in, None for one that is not kept.

    weights, usual: of each doubt its weight, and the value that stands in for an unknown one. pooled: of all classes.
    empty_rate: share of empty masks that were right, of lesions and of other classes. made_with: facts about the
    prediction and the tables.
    """

    weights: Mapping[str, float]
    usual: Mapping[str, float]
    pooled: Knots
    classes: Mapping[str, ClassMap]
    empty_rate: Mapping[str, float]
    made_with: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None

    def expected_dsc(self, scores: LabelScores) -> float | None:
        """Return the DSC to be expected of a mask, 0 to 1; None for a class that too few cases were measured of."""
        known = self.classes.get(scores.class_name)
        if known is None or known.cases + known.empty < LEAST_OF_CLASS:
            return None
        return self.estimate(scores)

    def estimate(self, scores: LabelScores) -> float:
        """Return what `expected_dsc` does, for a class without cases by the pooled map."""
        known = self.classes.get(scores.class_name, ClassMap(0, 0.0, None, 0, 0))
        if scores.mean_prob is None or scores.ml == 0:
            rate = self.empty_rate[_kind(scores.class_name)]
            return (known.empty_right + EMPTY_CASES * rate) / (known.empty + EMPTY_CASES)
        risk = self.risk(scores)
        general = float(np.clip(np.interp(risk, *self.pooled) + known.offset, 0, 1))
        if known.own is None:
            return general
        share = known.cases / (known.cases + OWN_CASES)
        return (1 - share) * general + share * float(np.interp(risk, *known.own))

    def risk(self, scores: LabelScores) -> float:
        """Return the weighted sum of the doubts."""
        return sum(
            self.weights[name] * (self.usual[name] if value is None else value)
            for name, value in doubts(scores).items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the map as plain values for JSON."""
        return {
            "format": FORMAT,
            "weights": dict(self.weights),
            "usual": dict(self.usual),
            "pooled": self.pooled,
            "classes": {name: vars(known) for name, known in self.classes.items()},
            "empty_rate": dict(self.empty_rate),
            "made_with": dict(self.made_with),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], run_id: str | None = None) -> Calibration:
        """Return the map that `to_dict` gave; ValueError for another format."""
        if values.get("format") != FORMAT:
            raise ValueError(
                f"calibration of run {run_id}: format {values.get('format')}, expected {FORMAT}; calibrate again"
            )
        return cls(
            values["weights"],
            values["usual"],
            _as_knots(values["pooled"]),
            {
                name: ClassMap(**{**known, "own": None if known["own"] is None else _as_knots(known["own"])})
                for name, known in values["classes"].items()
            },
            values["empty_rate"],
            values["made_with"],
            run_id,
        )


def doubts(scores: LabelScores) -> dict[str, float | None]:
    """Return the doubts about a mask by name, each 0 or more and the larger the worse; None where it is not known.

    odd: by how much the largest z-score exceeds 2, of at most 8.
    """
    largest = max((abs(value) for value in scores.z.values()), default=0.0)
    return {
        "improbable": None if scores.mean_prob is None else 1 - scores.mean_prob,
        "entropy": scores.boundary_entropy,
        "disagreement": None if scores.agreement is None else 1 - scores.agreement,
        "odd": min(max(0.0, largest - 2.0), MOST_ODD),
        "removed": scores.removed_share,
    }


@dataclass(frozen=True)
class Measured:
    """One class of one case with a human label: the scores of the mask, and what it was worth.

    dsc: None where truth and mask are both empty, which is right. group: scans that must not be divided.
    """

    case_id: str
    group: str
    scores: LabelScores
    dsc: float | None

    @property
    def empty(self) -> bool:
        """Whether the model found nothing."""
        return self.scores.mean_prob is None or self.scores.ml == 0


def fit(measured: Sequence[Measured], made_with: Mapping[str, Any] | None = None) -> Calibration:
    """Return the map of what was measured; ValueError for fewer than 10 masks that are not empty."""
    found = [one for one in measured if not one.empty]
    if len(found) < LEAST_PAIRS:
        raise TooFewMasks(
            f"{len(found)} predicted masks with a human label, expected at least {LEAST_PAIRS}; calibrate on more "
            "held-out cases (--cohort, --cases)"
        )
    dsc = np.array([0.0 if one.dsc is None else one.dsc for one in found])
    table = pd.DataFrame([doubts(one.scores) for one in found], columns=list(DOUBTS), dtype=np.float64)
    usual = table.median().fillna(0.0)
    values = table.fillna(usual)
    spread = values.std(ddof=0).replace(0.0, np.inf)
    # 0 or more: a doubt may count for nothing, but never for the better
    fitted = LinearRegression(positive=True).fit((values / spread).to_numpy(), 1 - dsc)
    weights: dict[str, float] = dict(zip(DOUBTS, (fitted.coef_ / spread).to_list(), strict=True))
    risks = values.to_numpy() @ np.array([weights[name] for name in DOUBTS])
    pooled = _isotonic(risks, dsc)
    off = dsc - np.interp(risks, *pooled)
    names = np.array([one.scores.class_name for one in found])
    classes = {}
    for name in sorted({one.scores.class_name for one in measured}):
        own = names == name
        count = int(own.sum())
        empty = [one for one in measured if one.empty and one.scores.class_name == name]
        classes[name] = ClassMap(
            count,
            float(off[own].sum() / (count + OFFSET_CASES)),
            _isotonic(risks[own], dsc[own]) if count >= LEAST_OF_CLASS else None,
            sum(one.dsc is None for one in empty),
            len(empty),
        )
    rates = {kind: _empty_rate(kind, measured) for kind in ("lesion", "organ")}
    return Calibration(
        {name: float(value) for name, value in weights.items()},
        {name: float(usual[name]) for name in DOUBTS},
        pooled,
        classes,
        rates,
        dict(made_with or {}),
    )


def cross_validated(measured: Sequence[Measured], folds: int = 5) -> pd.DataFrame:
    """Return what is expected of each measured mask by a map that was fitted without its patient.

    Columns: case_id, class_name, empty, expected, dsc (1 where mask and truth are both empty). ValueError for fewer
    than two patients.
    """
    groups = sorted({one.group for one in measured})
    if len(groups) < 2:
        raise TooFewMasks(f"{len(groups)} patients to calibrate on, expected at least 2; give more held-out cases")
    fold = {group: number % folds for number, group in enumerate(groups)}
    rows = []
    for number in sorted(set(fold.values())):
        held_out = [one for one in measured if fold[one.group] == number]
        calibration = fit([one for one in measured if fold[one.group] != number])
        rows += [
            {
                "case_id": one.case_id,
                "class_name": one.scores.class_name,
                "empty": one.empty,
                "expected": calibration.estimate(one.scores),
                "dsc": 1.0 if one.dsc is None else one.dsc,
            }
            for one in held_out
        ]
    return pd.DataFrame(rows).sort_values(["case_id", "class_name"], ignore_index=True)


def _isotonic(risks: NDArray[np.float64], dsc: NDArray[np.float64]) -> Knots:
    fitted = IsotonicRegression(y_min=0, y_max=1, increasing=False, out_of_bounds="clip").fit(risks, dsc)
    return tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_))


def _empty_rate(kind: str, measured: Sequence[Measured]) -> float:
    """Return the share of empty masks that were right, of lesions or of organs, drawn towards one half."""
    empty = [one for one in measured if one.empty and _kind(one.scores.class_name) == kind]
    return (sum(one.dsc is None for one in empty) + 1) / (len(empty) + 2)


def _kind(class_name: str) -> str:
    return "lesion" if class_info(class_name).is_lesion else "organ"


def _as_knots(values: Sequence[Sequence[float]]) -> Knots:
    return tuple(values[0]), tuple(values[1])
