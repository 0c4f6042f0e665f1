"""`report`: tables with intervals, charts and page of 1,000 cases of 32 classes; intervals against scipy in a loop."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from benchmarks.side_by_side import record, run_in_turn
from datasets_registry.taxonomy import all_classes
from tasks.efficiency import Efficiency
from tasks.evaluate import CohortScores
from tasks.evaluate_case import FIGURES, LESION_COLUMNS, SCORE_COLUMNS
from tasks.evaluation_charts import class_boxes, comparison_chart, roc_chart
from tasks.evaluation_report import evaluation_report
from tasks.evaluation_run import Other, make_tables
from tasks.evaluation_tables import pooled_table
from tasks.pictures import class_scores
from tasks.registry import ModelVersion
from tasks.report import Picture, write_report
from tasks.settings import Settings
from tasks.statistics import RESAMPLES

CASES, DATASETS = 1000, 10
BAR_S = 10.0


def made_up(seed: int = 0) -> pd.DataFrame:
    """Return 1,000 x 32 score rows, a twentieth of them of empty masks, over ten data sets and 900 patients."""
    rng = np.random.default_rng(seed)
    classes = list(all_classes())
    case = np.repeat(np.arange(CASES), len(classes))
    rows = len(case)
    lesion = np.tile([info.is_lesion for info in classes], CASES)
    dsc = rng.beta(8, 2, rows)
    empty = rng.random(rows) < 0.05
    truth = np.where(empty, 0.0, rng.lognormal(3, 1, rows))
    predicted = np.where(empty, 0.0, truth * rng.lognormal(0, 0.2, rows))
    false = np.where(empty & (rng.random(rows) < 0.3), 2.0, 0.0)
    lesions = np.where(lesion & ~empty, rng.integers(1, 6, rows), 0)
    score = np.where(empty, 0.4 * rng.random(rows), 0.3 + 0.7 * rng.random(rows))
    table = pd.DataFrame(
        {
            "case_id": [f"set{number % DATASETS}/{number}" for number in case],
            "dataset": [f"set{number % DATASETS}" for number in case],
            "class_name": np.tile([info.name for info in classes], CASES),
            "dsc": np.where(empty, np.nan, dsc),
            "nsd": np.where(empty, np.nan, dsc**2),
            "hd95_mm": np.where(empty, np.nan, rng.lognormal(1, 1, rows)),
            "asd_mm": np.where(empty, np.nan, rng.lognormal(0, 1, rows)),
            "volume_error_ml": predicted - truth,
            "truth_ml": truth,
            "predicted_ml": predicted + false,
            "known_absent": False,
            "detected_ml": predicted + false,
            "lesions": lesions,
            "lesions_found": rng.binomial(lesions, 0.8),
            "false_lesions": np.where(lesion, rng.poisson(0.3, rows), 0),
            "largest_lesion_ml": np.where(lesion, truth, np.nan),
            "lesion_score": np.where(lesion, score, np.nan),
            "patient": [f"p{number % 900}" for number in case],
            "role": ["train" if number % DATASETS < 8 else "external" for number in case],
            "slice_mm": rng.choice([1.0, 2.5, 5.0], CASES)[case],
            "contrast": "not known",
            "scanner": "not known",
        }
    )
    return table[list(SCORE_COLUMNS)]


def whole_report(scores: pd.DataFrame, other: pd.DataFrame, folder: Path) -> Path:
    """Write the page of an evaluation, with everything that comes of its score rows, and return it."""
    results = CohortScores(scores, pd.DataFrame(columns=list(LESION_COLUMNS)), pd.DataFrame(), 0)
    second = Other(ModelVersion("universal", 2, "run", ()), other)
    tables = make_tables(results, Settings(), None, second)
    roc = roc_chart(scores, tables["detection"], folder / "roc.png")
    pictures = [
        Picture(class_scores(tables["classes"], folder / "class_scores.png"), ""),
        Picture(class_boxes(scores, folder / "boxes.png"), ""),
        Picture(comparison_chart(tables["comparison"], "a", "b", folder / "comparison.png"), ""),
    ]
    pictures += [] if roc is None else [Picture(roc, "")]
    cost = Efficiency(62_000_000, 330.0, 40.0, 12.0, 4.0, "cpu", 14)
    return write_report(evaluation_report("models:/universal/1", {}, tables, cost, pictures, {}), folder / "page.html")


def by_scipy(scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean and interval of each figure and class, one call of scipy each."""
    rows = []
    for name, part in scores.groupby("class_name"):
        for figure in FIGURES:
            # the mean of each patient's scans, so that patients are drawn
            values = part.groupby("patient")[figure].mean().dropna().to_numpy()
            found = bootstrap((values,), np.mean, method="percentile", n_resamples=RESAMPLES, rng=0)
            rows.append((name, figure, values.mean(), *found.confidence_interval))
    return pd.DataFrame(rows, columns=["class_name", "figure", "mean", "low", "high"])


def check(scores: pd.DataFrame) -> None:
    """Raise ValueError where the bounds of DSC differ from scipy's by more than resampling explains."""
    ours = pooled_table(scores).set_index("class_name")
    theirs = by_scipy(scores)
    theirs = theirs[theirs["figure"] == "dsc"].set_index("class_name")
    for bound in ("low", "high"):
        apart = (ours[f"dsc_{bound}"] - theirs[bound]).abs().max()
        if apart > 0.003:
            raise ValueError(f"report: bounds {bound} differ from scipy's by {apart}, expected at most 0.003")


def main() -> None:
    scores, other = made_up(0), made_up(1)
    check(scores)
    run_in_turn("report intervals", lambda: pooled_table(scores), lambda: by_scipy(scores), repeats=3)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        whole_report(scores, other, Path(folder))
        record("report", time.perf_counter() - started, BAR_S, "s")
