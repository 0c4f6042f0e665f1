"""The tables and figures that the gates look at, from scores written down by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tasks.detection import HERE, OperatingPoints, choose_limit, choose_points, detection_table, roc_curve
from tasks.evaluate_case import SCORE_COLUMNS
from tasks.evaluation_pictures import worst_cases
from tasks.evaluation_run import class_metrics
from tasks.evaluation_tables import (
    class_table,
    comparison_table,
    generalisation_table,
    pooled_table,
    shown,
    strata_table,
    summary_metrics,
)

NAN = float("nan")


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        # case, data set, class, dsc, truth_ml, predicted_ml, known_absent
        ("a/1", "a", "liver", 0.9, 1500.0, 1400.0, False),
        ("a/2", "a", "liver", 0.7, 1500.0, 900.0, False),
        ("a/1", "a", "spleen", 0.5, 200.0, 100.0, False),
        ("b/1", "b", "spleen", NAN, 0.0, 0.0, False),
        ("a/1", "a", "liver_tumor", 0.4, 8.0, 6.0, False),
        ("a/2", "a", "liver_tumor", 0.0, 2.0, 0.4, False),
        ("b/1", "b", "liver_tumor", NAN, 0.0, 0.1, True),
        ("b/2", "b", "liver_tumor", NAN, 0.0, 3.0, True),
    ]
    table = pd.DataFrame(
        rows, columns=["case_id", "dataset", "class_name", "dsc", "truth_ml", "predicted_ml", "known_absent"]
    )
    table = table.assign(
        nsd=table["dsc"] - 0.1,
        hd95_mm=[4.0, 8.0, 12.0, NAN, 3.0, NAN, NAN, NAN],
        asd_mm=[1.0, 3.0, 2.0, NAN, 1.0, NAN, NAN, NAN],
        volume_error_ml=table["predicted_ml"] - table["truth_ml"],
        detected_ml=table["predicted_ml"],
        lesions=[0, 0, 0, 0, 3, 1, 0, 0],
        lesions_found=[0, 0, 0, 0, 2, 0, 0, 0],
        false_lesions=[0, 0, 0, 0, 1, 0, 0, 1],
        largest_lesion_ml=[NAN, NAN, NAN, NAN, 6.0, 2.0, 0.0, 0.0],
        lesion_score=[NAN, NAN, NAN, NAN, 0.9, 0.5, 0.6, 0.4],
        patient=table["case_id"],
        role=["train" if name == "a" else "external" for name in table["dataset"]],
        slice_mm=[1.0, 5.0, 1.0, 2.5, 1.0, 5.0, 2.5, 2.5],
        contrast="not known",
        scanner="not known",
    )
    return table[list(SCORE_COLUMNS)]


def test_class_table_says_what_each_mean_leaves_out(scores: pd.DataFrame) -> None:
    table = class_table(scores).set_index(["dataset", "class_name"])
    assert list(table.index) == [("a", "spleen"), ("a", "liver"), ("a", "liver_tumor"), ("b", "spleen")]
    liver = table.loc[("a", "liver")]
    assert (liver["dsc"], liver["dsc_low"], liver["dsc_high"]) == pytest.approx((0.8, 0.7, 0.9))
    assert (liver["hd95_mm"], liver["volume_error_ml"]) == pytest.approx((6.0, -350.0))
    empty = table.loc[("b", "spleen")]
    assert (empty["cases"], empty["scored"], empty["both_empty"]) == (1, 0, 1)
    assert math.isnan(empty["dsc"])
    counts = ["cases", "scored", "both_empty", "not_annotated", "surfaces"]
    # Of the two cases of `a` one has a spleen annotated; of the two tumours one has a prediction to take distances to.
    assert table.loc[("a", "spleen"), counts].tolist() == [1, 1, 0, 1, 1]
    assert table.loc[("a", "liver_tumor"), counts].tolist() == [2, 2, 0, 0, 1]


def test_pooled_table_takes_all_data_sets_together(scores: pd.DataFrame) -> None:
    table = pooled_table(scores).set_index("class_name")
    assert table.loc["spleen", ["cases", "scored", "both_empty", "not_annotated"]].tolist() == [2, 1, 1, 2]


def test_a_mean_over_one_patient_has_no_interval(scores: pd.DataFrame) -> None:
    table = shown(class_table(scores)).set_index(["dataset", "class_name"])
    assert table.loc[("a", "spleen"), "dsc"] == "0.500"
    assert table.loc[("a", "liver"), "dsc"] == "0.800 [0.700, 0.900]"
    assert table.loc[("b", "spleen"), "dsc"] == "–"
    assert "dsc_low" not in table.columns


def test_strata_hold_every_case_and_name_what_is_not_known(scores: pd.DataFrame) -> None:
    table = strata_table(scores)
    assert set(table["by"]) == {"role", "slices", "lesion size", "contrast", "scanner"}
    liver = table[(table["class_name"] == "liver") & (table["by"] == "slices")].set_index("stratum")
    assert liver["dsc"].to_dict() == pytest.approx({"to 1.5 mm": 0.9, "over 3 to 5 mm": 0.7})
    sizes = table[table["by"] == "lesion size"]
    assert set(sizes["class_name"]) == {"liver_tumor"}
    assert dict(zip(sizes["stratum"], sizes["dsc"], strict=True)) == {"over 1 to 10 ml": pytest.approx(0.2)}
    for kind in ("role", "slices", "contrast", "scanner"):
        assert table[table["by"] == kind]["cases"].sum() == 6  # all rows but those known to be absent
    assert set(table[table["by"] == "contrast"]["stratum"]) == {"not known"}


def test_detection_counts_patients_not_voxels(scores: pd.DataFrame) -> None:
    table = detection_table(scores, min_ml=0.5).set_index("class_name")
    row = table.loc["liver_tumor"]
    assert (row["positives"], row["negatives"]) == (2, 2)
    assert row["sensitivity"] == pytest.approx(0.5)  # 6 ml found, 0.4 ml is below the limit
    assert row["specificity"] == pytest.approx(0.5)  # 0.1 ml passes as nothing, 3 ml does not
    assert row["f1"] == pytest.approx(2 / (2 + 1 + 1))
    # Wilson's interval of 1 in 2: (1 + z^2 / 2 -+ z sqrt(1/2 + z^2 / 4)) / (2 + z^2)
    z = 1.959964
    low = (1 + z**2 / 2 - z * math.sqrt(0.5 + z**2 / 4)) / (2 + z**2)
    assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx((low, 1 - low), abs=1e-6)
    assert list(table.index) == ["liver_tumor"]


def test_detection_counts_lesions(scores: pd.DataFrame) -> None:
    row = detection_table(scores, min_ml=0.5).set_index("class_name").loc["liver_tumor"]
    assert (row["lesions"], row["lesions_found"], row["false_lesions"]) == (4, 2, 2)
    assert row["lesion_sensitivity"] == pytest.approx(0.5)
    assert row["lesion_f1"] == pytest.approx(4 / (4 + 2 + 2))
    assert row["false_per_scan"] == pytest.approx(0.5)


def test_auc_is_of_the_lesion_score_over_patients(scores: pd.DataFrame) -> None:
    row = detection_table(scores, min_ml=0.5).set_index("class_name").loc["liver_tumor"]
    # Positives 0.9 and 0.5, negatives 0.6 and 0.4: three of four pairs in order. Volumes 6, 0.4 against 0.1, 3: too.
    assert row["auc"] == pytest.approx(0.75)
    assert row["auc_volume"] == pytest.approx(0.75)
    false, found = roc_curve(np.array([0.9, 0.5, 0.6, 0.4]), np.array([True, True, False, False]))
    assert false.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0]
    assert found.tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]


def test_scores_without_the_columns_of_detection_still_give_patients(scores: pd.DataFrame) -> None:
    few = scores[["case_id", "dataset", "class_name", "dsc", "nsd", "truth_ml", "predicted_ml", "known_absent"]]
    row = detection_table(few, min_ml=0.5).set_index("class_name").loc["liver_tumor"]
    assert (row["sensitivity"], row["specificity"], row["lesions"]) == (0.5, 0.5, 0)
    assert summary_metrics(few, 0.5) == pytest.approx(summary_metrics(scores, 0.5))


def test_the_limit_of_youden_and_the_one_that_keeps_a_sensitivity() -> None:
    volume = np.array([0.0, 1.0, 4.0, 9.0, 0.0, 2.0, 0.5])
    positive = np.array([True, True, True, True, False, False, False])
    # from 4 ml on: 2 of 4 found, 3 of 3 spared; from 1 on: 3 of 4 and 2 of 3, less in sum
    assert choose_limit(volume, positive) == 4.0
    assert choose_limit(volume, positive, least_sensitivity=0.75) == 1.0
    assert math.isnan(choose_limit(volume, positive, least_sensitivity=1.0))
    assert math.isnan(choose_limit(volume, np.ones(7, dtype=bool)))


def test_an_operating_point_says_where_it_was_chosen(scores: pd.DataFrame) -> None:
    here = detection_table(scores, min_ml=0.5).iloc[0]
    assert (here["chosen_min_ml"], here["chosen_on"]) == (6.0, HERE)
    assert (here["chosen_sensitivity"], here["chosen_specificity"]) == (0.5, 1.0)
    elsewhere = detection_table(scores, 0.5, OperatingPoints({"liver_tumor": 0.2}, "run x")).iloc[0]
    assert (elsewhere["chosen_sensitivity"], elsewhere["chosen_specificity"]) == (1.0, 0.5)
    assert elsewhere["chosen_on"] == "run x"
    assert choose_points(scores, "run y").limits == {"liver_tumor": 6.0}


def test_generalisation_shows_each_cohort_with_its_role(scores: pd.DataFrame) -> None:
    table = generalisation_table(scores).set_index("dataset")
    assert table["role"].to_dict() == {"a": "train", "b": "external"}
    assert table.loc["a", "organ_dsc"] == pytest.approx((0.8 + 0.5) / 2)
    assert math.isnan(table.loc["b", "organ_dsc"])
    assert table.loc["a", "liver_tumor"] == pytest.approx(0.2)


def test_comparison_is_of_the_same_cases_and_says_what_it_could_not_pair(scores: pd.DataFrame) -> None:
    other = scores.assign(dsc=scores["dsc"] - 0.2)
    other.loc[other["class_name"] == "spleen", "dsc"] = NAN
    table = comparison_table(scores, other).set_index("class_name")
    liver = table.loc["liver"]
    assert (liver["scored"], liver["a"], liver["b"], liver["difference"]) == pytest.approx((2, 0.8, 0.6, 0.2))
    assert (liver["low"], liver["high"]) == pytest.approx((0.2, 0.2))
    spleen = table.loc["spleen"]
    assert (spleen["scored"], spleen["one_only"]) == (0, 1)
    assert math.isnan(spleen["p_holm"])
    # Two classes have a p-value: Holm doubles the smaller one.
    assert liver["p_holm"] == pytest.approx(min(1.0, 2 * liver["p_wilcoxon"]))


def test_summary_weighs_classes_alike_and_leaves_lesions_out(scores: pd.DataFrame) -> None:
    summary = summary_metrics(scores, min_ml=0.5)
    assert summary["mean_organ_dsc"] == pytest.approx((0.8 + 0.5) / 2)
    assert summary["worst_organ_dsc"] == pytest.approx(0.5)
    assert summary["mean_lesion_dsc"] == pytest.approx(0.2)
    assert summary["mean_organ_dsc_low"] <= summary["mean_organ_dsc"] <= summary["mean_organ_dsc_high"]


def test_what_was_not_measured_is_left_out(scores: pd.DataFrame) -> None:
    organs = scores[scores["class_name"] != "liver_tumor"]
    assert "sensitivity" not in summary_metrics(organs, min_ml=0.5)


def test_metrics_have_steady_names(scores: pd.DataFrame) -> None:
    found = class_metrics(pooled_table(scores), detection_table(scores, min_ml=0.5))
    assert found["dsc/liver"] == pytest.approx(0.8)
    assert found["sensitivity/liver_tumor"] == pytest.approx(0.5)
    assert {"nsd/liver", "dsc_low/liver", "hd95_mm/liver", "auc/liver_tumor"} <= found.keys()
    assert all(np.isfinite(value) for value in found.values())


def test_worst_cases_are_each_shown_once(scores: pd.DataFrame) -> None:
    found = worst_cases(scores)
    assert [(row["case_id"], row["class_name"]) for row in found] == [("a/2", "liver_tumor"), ("a/1", "liver_tumor")]
