"""Detection of lesions: per patient and per lesion, the ROC, and the volume from which a patient counts as positive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from datasets_registry.taxonomy import all_classes
from tasks.statistics import bootstrap_auc, bootstrap_ratio

HERE = "these cases (optimistic)"
"""Said of an operating point that was chosen on the cases it is reported on."""


_NONE_COUNTED = {"lesions": 0, "lesions_found": 0, "false_lesions": 0, "lesion_score": float("nan")}


def with_every_column(scores: pd.DataFrame) -> pd.DataFrame:
    """Return score rows with the columns of detection, where volumes alone are there: each case is then a patient, what
    was predicted is what was detected, and no single lesion was counted."""
    filled: dict[str, Any] = {"patient": scores["case_id"], "detected_ml": scores["predicted_ml"], **_NONE_COUNTED}
    return scores.assign(**{name: value for name, value in filled.items() if name not in scores})


@dataclass(frozen=True)
class OperatingPoints:
    """From which predicted volume on, in ml, a patient counts as positive, by lesion class; and where it was chosen."""

    limits: Mapping[str, float]
    chosen_on: str


def detection_table(
    scores: pd.DataFrame,
    min_ml: float,
    points: OperatingPoints | None = None,
    least_sensitivity: float | None = None,
) -> pd.DataFrame:
    """Return detection per lesion class, of the score rows of an evaluation.

    Per patient: one is positive in truth when the class has any voxel, negative where annotators found none or the
    source says that nobody has it, and predicted positive from `min_ml` ml of detected_ml on. sensitivity (NaN without
    a positive), specificity (NaN without a negative) with 95 % Wilson intervals, which hold for 0 and 1 too; f1.

    Per lesion (parts matched by overlap, those under `lesion_min_ml` left out): lesions, lesions_found, false_lesions,
    lesion_sensitivity with a bootstrap interval over patients, lesion_f1 = 2 found / (2 found + false + missed), and
    false_per_scan. There is no specificity per lesion: nobody can count the lesions that are not there.

    auc: area under the ROC curve over patients of lesion_score; auc_volume: of detected_ml. chosen_*: the volume limit
    by `choose_limit`, and what it gives. points: limits chosen on other cases; without them they are chosen on these,
    which `chosen_on` calls optimistic.
    """
    rows = []
    scores = with_every_column(scores)
    for name in (info.name for info in all_classes() if info.is_lesion):
        of_class = scores[scores["class_name"] == name]
        if of_class.empty:
            continue
        positive = (of_class["truth_ml"] > 0).to_numpy()
        volume = of_class["detected_ml"].to_numpy(dtype=float)
        patients = of_class["patient"].tolist()
        if points is None:
            limit, chosen_on = choose_limit(volume, positive, least_sensitivity), HERE
        else:
            limit, chosen_on = points.limits.get(name, float("nan")), points.chosen_on
        auc = bootstrap_auc(of_class["lesion_score"], positive, patients)
        auc_volume = bootstrap_auc(volume, positive, patients)
        at_limit = _per_patient(volume >= limit, positive)
        rows.append(
            {
                "class_name": name,
                "positives": int(positive.sum()),
                "negatives": int((~positive).sum()),
                **_per_patient(volume >= min_ml, positive),
                **_per_lesion(of_class),
                "auc": auc.mean,
                "auc_low": auc.low,
                "auc_high": auc.high,
                "auc_volume": auc_volume.mean,
                "chosen_min_ml": limit,
                "chosen_sensitivity": at_limit["sensitivity"] if np.isfinite(limit) else float("nan"),
                "chosen_specificity": at_limit["specificity"] if np.isfinite(limit) else float("nan"),
                "chosen_on": chosen_on,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


COLUMNS = (
    "class_name",
    "positives",
    "negatives",
    "sensitivity",
    "sensitivity_low",
    "sensitivity_high",
    "specificity",
    "specificity_low",
    "specificity_high",
    "f1",
    "lesions",
    "lesions_found",
    "false_lesions",
    "lesion_sensitivity",
    "lesion_sensitivity_low",
    "lesion_sensitivity_high",
    "lesion_f1",
    "false_per_scan",
    "auc",
    "auc_low",
    "auc_high",
    "auc_volume",
    "chosen_min_ml",
    "chosen_sensitivity",
    "chosen_specificity",
    "chosen_on",
)


def _per_patient(predicted: NDArray[np.bool_], positive: NDArray[np.bool_]) -> dict[str, float]:
    found, missed = int((predicted & positive).sum()), int((~predicted & positive).sum())
    false, spared = int((predicted & ~positive).sum()), int((~predicted & ~positive).sum())
    sensitivity, specificity = _share(found, found + missed), _share(spared, spared + false)
    whole = 2 * found + false + missed
    return {
        "sensitivity": sensitivity[0],
        "sensitivity_low": sensitivity[1],
        "sensitivity_high": sensitivity[2],
        "specificity": specificity[0],
        "specificity_low": specificity[1],
        "specificity_high": specificity[2],
        "f1": 2 * found / whole if whole else float("nan"),
    }


def _share(part: int, whole: int) -> tuple[float, float, float]:
    if whole == 0:
        return (float("nan"),) * 3
    interval = binomtest(part, whole).proportion_ci(0.95, method="wilson")
    return part / whole, float(interval.low), float(interval.high)


def _per_lesion(of_class: pd.DataFrame) -> dict[str, float]:
    lesions, found, false = (int(of_class[name].sum()) for name in ("lesions", "lesions_found", "false_lesions"))
    share = bootstrap_ratio(of_class["lesions_found"], of_class["lesions"], of_class["patient"].tolist())
    whole = 2 * found + false + (lesions - found)
    return {
        "lesions": lesions,
        "lesions_found": found,
        "false_lesions": false,
        "lesion_sensitivity": share.mean,
        "lesion_sensitivity_low": share.low,
        "lesion_sensitivity_high": share.high,
        "lesion_f1": 2 * found / whole if whole else float("nan"),
        "false_per_scan": false / len(of_class),
    }


def choose_limit(
    volume_ml: NDArray[np.float64], positive: NDArray[np.bool_], least_sensitivity: float | None = None
) -> float:
    """Return the volume in ml from which on a patient counts as positive, NaN without positives and negatives.

    The limit of the largest sensitivity + specificity (Youden, Cancer 3, 1950); with `least_sensitivity` that of the
    best specificity among those that keep it. Of equal ones the larger, which calls fewer patients ill.
    """
    if not positive.any() or positive.all():
        return float("nan")
    limits = np.unique(volume_ml[volume_ml > 0])
    if not len(limits):
        return float("nan")
    sensitivity = (volume_ml[positive][None, :] >= limits[:, None]).mean(axis=1)
    specificity = (volume_ml[~positive][None, :] < limits[:, None]).mean(axis=1)
    if least_sensitivity is None:
        worth = sensitivity + specificity
    else:
        worth = np.where(sensitivity >= least_sensitivity, specificity, -1.0)
        if worth.max() < 0:
            return float("nan")  # no limit above 0 keeps the sensitivity asked for
    return float(limits[np.flatnonzero(worth >= worth.max() - 1e-12)[-1]])


def choose_points(scores: pd.DataFrame, chosen_on: str, least_sensitivity: float | None = None) -> OperatingPoints:
    """Return the limit of every lesion class of an evaluation, to be used on other cases."""
    limits = {}
    for name, part in scores.groupby("class_name"):
        if name in {info.name for info in all_classes() if info.is_lesion}:
            positive = (part["truth_ml"] > 0).to_numpy()
            limits[str(name)] = choose_limit(part["detected_ml"].to_numpy(dtype=float), positive, least_sensitivity)
    return OperatingPoints(limits, chosen_on)


def roc_curve(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Return false positive rate and sensitivity (n + 1,) each, from the strictest limit to none."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits, misses = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    return np.append(0.0, misses / max(1, misses[-1])), np.append(0.0, hits / max(1, hits[-1]))
