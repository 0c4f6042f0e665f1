"""The tables and figures that the gates look at, from scores written down by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from tasks.evaluate import SCORE_COLUMNS, class_table, detection_table, summary_metrics

NAN = float("nan")


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        # case, data set, class, dsc, nsd, truth_ml, predicted_ml, known_absent
        ("a/1", "a", "liver", 0.9, 0.8, 1500.0, 1400.0, False),
        ("a/2", "a", "liver", 0.7, 0.6, 1500.0, 900.0, False),
        ("a/1", "a", "spleen", 0.5, 0.4, 200.0, 100.0, False),
        ("b/1", "b", "spleen", NAN, NAN, 0.0, 0.0, False),
        ("a/1", "a", "liver_tumor", 0.4, 0.3, 8.0, 6.0, False),
        ("a/2", "a", "liver_tumor", 0.0, 0.0, 2.0, 0.4, False),
        ("b/1", "b", "liver_tumor", NAN, NAN, 0.0, 0.1, True),
        ("b/2", "b", "liver_tumor", NAN, NAN, 0.0, 3.0, True),
    ]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def test_class_table_counts_cases_and_scored_cases_apart(scores: pd.DataFrame) -> None:
    table = class_table(scores).set_index(["dataset", "class_name"])
    assert list(table.index) == [("a", "spleen"), ("a", "liver"), ("a", "liver_tumor"), ("b", "spleen")]
    assert table.loc[("a", "liver"), "dsc"] == pytest.approx(0.8)
    assert table.loc[("b", "spleen"), "cases"] == 1
    assert table.loc[("b", "spleen"), "scored"] == 0
    assert math.isnan(table.loc[("b", "spleen"), "dsc"])


def test_detection_counts_patients_not_voxels(scores: pd.DataFrame) -> None:
    table = detection_table(scores, min_ml=0.5).set_index("class_name")
    row = table.loc["liver_tumor"]
    assert (row["positives"], row["negatives"]) == (2, 2)
    assert row["sensitivity"] == pytest.approx(0.5)  # 6 ml found, 0.4 ml is below the limit
    assert row["specificity"] == pytest.approx(0.5)  # 0.1 ml passes as nothing, 3 ml does not
    assert list(table.index) == ["liver_tumor"]


def test_summary_weighs_classes_alike_and_leaves_lesions_out(scores: pd.DataFrame) -> None:
    summary = summary_metrics(scores, min_ml=0.5)
    assert summary["mean_organ_dsc"] == pytest.approx((0.8 + 0.5) / 2)
    assert summary["worst_organ_dsc"] == pytest.approx(0.5)
    assert summary["mean_lesion_dsc"] == pytest.approx(0.2)


def test_what_was_not_measured_is_left_out(scores: pd.DataFrame) -> None:
    organs = scores[scores["class_name"] != "liver_tumor"]
    assert "sensitivity" not in summary_metrics(organs, min_ml=0.5)
