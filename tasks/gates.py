"""The verdicts: what a version's evaluations show, held against the rules; every gate is told, passed or not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.detection import detection_table
from tasks.evidence import Evidence
from tasks.gate_rules import AgainstChampion, Figure, GateRules, Group
from tasks.statistics import paired_comparison

SHOWN = 5
"""Classes or cases that a verdict names."""


@dataclass(frozen=True)
class Gate:
    """One gate: its name, what was found, what is needed, whether that is reached, and what to do where it is not."""

    gate: str
    value: str
    bar: str
    passed: bool
    remark: str = ""

    def row(self) -> dict[str, str]:
        """Return the gate as a row of a table."""
        return {
            "gate": self.gate,
            "value": self.value,
            "bar": self.bar,
            "verdict": "passed" if self.passed else "REFUSED",
            "remark": self.remark,
        }

    def __str__(self) -> str:
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.gate}: {self.value}, needed {self.bar}{remark}"


def gate_table(gates: Sequence[Gate]) -> pd.DataFrame:
    """Return one row a gate."""
    return pd.DataFrame([gate.row() for gate in gates], columns=["gate", "value", "bar", "verdict", "remark"])


def bar_gates(scores: pd.DataFrame, rules: GateRules, min_ml: float) -> Iterator[Gate]:
    """Yield a gate for every bar of every class group.

    scores: rows of an evaluation. min_ml: volume from which a patient counts as predicted positive.
    """
    detection = detection_table(scores, min_ml)
    for group in rules.groups:
        for figure, bar in group.bars.items():
            value, of = _figure(scores, detection, group, figure)
            yield Gate(
                f"{group.name}: {figure.replace('_', ' ')}",
                "not measured" if math.isnan(value) else f"{value:.3f}",
                f"at least {bar:.3f}",
                value >= bar,
                of,
            )


def _figure(scores: pd.DataFrame, detection: pd.DataFrame, group: Group, figure: Figure) -> tuple[float, str]:
    """Return a figure of a group, NaN where nothing was measured, and over what it was taken."""
    kind = figure.removeprefix("worst_")
    if kind in ("dsc", "nsd"):
        of_group = scores[scores["class_name"].isin(group.members()) & ~scores["known_absent"]]
        by_class = of_group.groupby("class_name")[kind].mean().dropna()
    else:
        by_class = detection[detection["class_name"].isin(group.members())].set_index("class_name")[kind].dropna()
    if by_class.empty:
        return float("nan"), f"no class of the group has {kind} measured"
    if figure.startswith("worst_"):
        return float(by_class.min()), str(by_class.idxmin())
    return float(by_class.mean()), f"{len(by_class)} classes"


def number_gate(scores: pd.DataFrame) -> Gate:
    """Return whether every score that must be a number is one: DSC is NaN only where truth and prediction are empty."""
    something = (scores["truth_ml"] > 0) | (scores["predicted_ml"] > 0)
    finite = np.isfinite(scores[["dsc", "nsd"]].to_numpy(dtype=float)).all(axis=1)
    wrong = scores[something & ~scores["known_absent"] & ~finite]
    beyond = scores[(scores["dsc"] < 0) | (scores["dsc"] > 1)]
    bad = pd.concat([wrong, beyond]).drop_duplicates(["case_id", "class_name"])
    named = ", ".join(f"{row.case_id} {row.class_name}" for row in bad.head(SHOWN).itertuples())
    return Gate(
        "scores are numbers",
        "all are" if bad.empty else f"{len(bad)} are not",
        "all",
        bad.empty,
        named and f"{named}; evaluate again",
    )


def metric_gate(logged: Mapping[str, float], recomputed: Mapping[str, float]) -> Gate:
    """Return whether the metrics that MLflow shows are those of the scores; somebody may have edited them."""
    differing = [
        f"{name} shows {logged.get(name, float('nan')):.3f}, the scores give {value:.3f}"
        for name, value in recomputed.items()
        if not math.isclose(logged.get(name, float("nan")), value, abs_tol=1e-9)
    ]
    return Gate(
        "metrics are those of the scores",
        f"{len(recomputed) - len(differing)} of {len(recomputed)}",
        f"{len(recomputed)}",
        not differing,
        "; ".join(differing[:SHOWN]),
    )


def class_gate(scores: pd.DataFrame, expected: pd.DataFrame, trained: Sequence[str]) -> Gate:
    """Return whether every class was scored that the model was trained on and the held-out cases annotate.

    expected: case_id and class_name of the human labels of the held-out cases.
    """
    of_trained = expected[expected["class_name"].isin(list(trained))]
    wanted: set[tuple[str, str]] = set(zip(of_trained["case_id"], of_trained["class_name"], strict=True))
    scored = scores[~scores["known_absent"]]
    missing = sorted(wanted - set(zip(scored["case_id"], scored["class_name"], strict=True)))
    classes = sorted({name for _, name in missing})
    return Gate(
        "every annotated class is scored",
        f"{len(wanted) - len(missing)} of {len(wanted)} labels",
        f"{len(wanted)}",
        bool(wanted) and not missing,
        f"without {', '.join(classes[:SHOWN])}; evaluate again" if missing else "",
    )


def champion_gate(
    challenger: Evidence, champion: Evidence, rules: AgainstChampion, groups: Mapping[str, str], name: str
) -> Gate:
    """Return whether no class is worse than the champion's by more than `rules.drop`, paired over the same cases.

    Judged is the lower end of the 95 % interval of the mean difference of DSC, bootstrapped over patients (split
    groups); of a class with one patient, which has no interval, the difference itself. groups: case id -> split group.
    name: of the champion.
    """
    pairs = challenger.scores.merge(champion.scores, on=["case_id", "class_name"], suffixes=("", "_champion"))
    worst, where, worse, judged = math.inf, "", [], 0
    for class_name, rows in pairs.groupby("class_name"):
        patients = [groups.get(case_id, case_id) for case_id in rows["case_id"]]
        difference = paired_comparison(rows["dsc"], rows["dsc_champion"], patients).difference
        if difference.n == 0:
            continue
        judged += 1
        low = difference.mean if math.isnan(difference.low) else difference.low
        if low < worst:
            worst, where = low, f"{class_name}, {difference.n} patients"
        if low < -rules.drop:
            worse.append(f"{class_name} {low:+.3f}")
    return Gate(
        f"no class worse than {name}",
        f"{worst:+.3f} ({where})" if judged else "no class was scored by both",
        f"lower bound at least {-rules.drop:+.3f}",
        judged > 0 and not worse,
        ", ".join(worse[:SHOWN]),
    )
