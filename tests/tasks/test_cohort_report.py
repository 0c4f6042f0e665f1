"""The page of a pseudo-label run: what it holds, which cases it shows, and that it needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cohort_report import browser, load_seconds, made_up_report
from tasks.cohort_pictures import choose, worst_median_best
from tasks.cohort_plots import BINS, distribution_svg
from tasks.cohort_report import CohortReport, page_data, write_cohort_report


@pytest.fixture(scope="module")
def report() -> CohortReport:
    return made_up_report(12)


@pytest.fixture(scope="module")
def html(report: CohortReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cohort_report(report, tmp_path_factory.mktemp("page") / "report.html").read_text()


def test_worst_median_and_best_are_those_of_the_scores() -> None:
    scores = pd.Series({"e": 0.9, "a": 0.1, "c": 0.5, "d": 0.7, "b": 0.3, "unscored": float("nan")})
    assert worst_median_best(scores) == {"worst": "a", "median": "c", "best": "e"}
    assert worst_median_best(scores[["a", "e"]]) == {"worst": "a", "best": "e"}
    assert worst_median_best(scores[["c"]]) == {"worst": "c"}
    assert worst_median_best(scores[["unscored"]]) == {}


def test_pictures_are_chosen_by_case_and_by_class_where_the_class_was_found() -> None:
    rows = pd.DataFrame(
        [
            {"case_id": "one", "class_name": "liver", "voxels": 9, "expected_dsc": 0.9, "quality_score": 0.1},
            {"case_id": "two", "class_name": "liver", "voxels": 9, "expected_dsc": 0.6, "quality_score": 0.1},
            {"case_id": "two", "class_name": "spleen", "voxels": 0, "expected_dsc": 0.0, "quality_score": None},
            {"case_id": "one", "class_name": "spleen", "voxels": 5, "expected_dsc": None, "quality_score": 0.2},
        ]
    )
    whole = [("worst", None, "one"), ("best", None, "two")]  # one: (0.9 + 0.2) / 2, two: 0.6
    assert choose(rows, per_class=False) == whole
    by_class = [("worst", "spleen", "one"), ("worst", "liver", "two"), ("best", "liver", "one")]
    assert choose(rows, per_class=True) == whole + by_class


def test_every_label_is_in_the_page_with_scores_decision_and_reason(report: CohortReport, html: str) -> None:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    data = json.loads(found[1])
    assert len(data["cases"]) == 12
    assert {len(column) for column in data["rows"].values()} == {12 * 32}
    first = report.rows.sort_values(["case_id", "class_name"]).iloc[0]
    assert data["cases"][data["rows"]["case"][0]] == first["case_id"]
    assert data["rows"]["dsc"][0] == pytest.approx(first["expected_dsc"], abs=1e-4)
    assert data["decisions"][data["rows"]["decision"][0]] == first["decision"]
    assert data["texts"][data["rows"]["reason"][0]] == first["reason"]
    assert data["rows"]["z"][0] == pytest.approx(
        max(abs(z) for z in json.loads(first["scores"])["z"].values()), abs=1e-4
    )
    assert [bool(one) for one in data["seen"]] == [True] + [False] * 11


def test_the_page_needs_no_other_file(html: str) -> None:
    addresses = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', html)
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "@import" not in html
    assert "url(" not in html


def test_what_a_scan_or_a_reason_is_called_cannot_become_code(report: CohortReport, tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>"
    rows = report.rows.assign(reason=bad)
    strange = CohortReport(bad, rows, report.outcomes, report.human, figures={bad: bad}, facts={bad: bad})
    html = write_cohort_report(strange, tmp_path / "report.html").read_text()
    assert "<script>alert" not in html
    assert bad in page_data(strange)["texts"]


def test_a_run_without_a_label_still_has_a_page(report: CohortReport, tmp_path: Path) -> None:
    nothing = CohortReport("none", report.rows.iloc[:0], {"clinic/a": ("failed", "unreadable")}, report.human)
    assert "clinic/a" in write_cohort_report(nothing, tmp_path / "report.html").read_text()


def test_a_distribution_shows_every_value_at_its_place_by_decision() -> None:
    svg = distribution_svg("x", [], {"accept": [0.1, 0.1, 0.9], "reject": [0.9]}, limits=(0.0, 1.0))
    step = 260 / BINS
    bars = re.findall(r"M([\d.]+) ([\d.]+)v(-[\d.]+)h", svg)
    assert "4 pseudo, 0 human" in svg
    # two of two at 0.1 reach the full 54 pixels; at 0.9 one accept of 27 carries one reject of 27
    found = [(round((float(x) - 1) / step), float(y), float(height)) for x, y, height in bars]
    assert found == [(2, 72.0, -54.0), (21, 72.0, -27.0), (21, 45.0, -27.0)]


def test_a_distribution_of_nothing_says_so_and_volumes_of_nothing_are_left_out() -> None:
    assert "no value" in distribution_svg("x", [np.nan], {"accept": []})
    assert "1 pseudo, 1 human" in distribution_svg("x", [10.0, 0.0], {"accept": [0.0, 100.0]}, logarithmic=True)


@pytest.mark.skipif(browser() is None, reason="no Chromium here; install it to see the page load in a browser")
def test_a_browser_draws_the_table(html: str, tmp_path: Path) -> None:
    chromium = browser()
    assert chromium is not None
    page = tmp_path / "page.html"
    # a script that failed would leave the table empty, and this would be no loaded page
    check = "if (document.querySelectorAll('#cases tbody tr').length !== 12) document.body.innerHTML = ''; "
    page.write_text(html.replace("</body>", f"<script>{check}</script></body>"))
    assert load_seconds(page, chromium) > 0
