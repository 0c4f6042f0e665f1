"""Robust z-scores against human labels: sizes, places relative to other organs, what is missing, what is mirrored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from imaging.scan_quality import ScanQuality, scan_quality
from imaging.volume import Volume
from models.cleaned import Cleaned
from models.infer import Prediction, Scores
from tasks.label_scores import _original_spacing, score_labels
from tasks.plausibility_reference import FLOORS, HumanReference, summarise
from tasks.plausibility_z import mirror_flag, missing_organs, robust_z

SHAPE = (80, 60, 100)
SPACING = (5.0, 5.0, 5.0)
PLACES = {"liver": (60, 10, 100), "spleen": (-90, -20, 110), "stomach": (-50, 30, 90), "aorta": (-5, -20, 60),
          "postcava": (15, -15, 60), "right_kidney": (60, -40, 30), "left_kidney": (-65, -40, 40)}  # fmt: skip
ML = {"liver": 1500.0, "spleen": 200.0, "stomach": 300.0, "aorta": 90.0, "postcava": 70.0, "right_kidney": 150.0,
      "left_kidney": 155.0}  # fmt: skip


def row(name: str, case: int = 0, **changes: Any) -> dict[str, Any]:
    """A label row of a case whose table stands elsewhere by 40 mm a case, and whose organs vary by a few mm and %."""
    random = np.random.default_rng([case, len(name), ord(name[0])])
    place = np.array(PLACES[name], dtype=float) + random.normal(0, 4, 3) + 40.0 * (case % 3)
    return {
        "case_id": f"set/{case}", "class_name": name, "label_origin": "human", "voxels": 1000,
        "ml": ML[name] * float(np.exp(random.normal(0, 0.2))), "hu_mean": 100.0 + float(random.normal(0, 15)),
        "centroid_mm": place.tolist(), "bbox": [10, 10, 10, 20, 20, 20], "components": 1, "touches_border": False,
        **changes,
    }  # fmt: skip


def case_rows(case: int = 100, **changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: row(name, case, **changes.get(name, {})) for name in PLACES}


@pytest.fixture(scope="module")
def reference() -> HumanReference:
    rows = [row(name, case) for case in range(25) for name in PLACES]
    return summarise(pd.DataFrame(rows), {f"set/{case}": SPACING for case in range(25)})


@pytest.fixture(scope="module")
def quality() -> ScanQuality:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-160.0, -110.0, -160.0)
    return scan_quality(Volume(np.full(SHAPE, 40, dtype=np.int16), affine))


def z_of(rows: dict[str, dict[str, Any]], name: str, reference: HumanReference, quality: ScanQuality):
    return robust_z(rows[name], rows, reference, quality)


def test_a_usual_case_is_usual_wherever_the_table_stands(reference: HumanReference, quality: ScanQuality) -> None:
    for case in (100, 101, 102):
        rows = case_rows(case)
        for name in PLACES:
            found = z_of(rows, name, reference, quality)
            assert set(found) == {"volume", "hu_mean", "components", "x", "y", "z"}
            assert all(abs(value) < 3.5 for value in found.values()), (name, found)


def test_z_is_the_distance_from_the_median_in_robust_spreads() -> None:
    # volumes e^0 .. e^4: median 2, MAD 1, of five cases: 1.4826 * (1 + 3 / 5)
    rows = [row("liver", case, ml=math.exp(case)) for case in range(5)]
    usual = summarise(pd.DataFrame(rows), {f"set/{case}": SPACING for case in range(5)}).usual("liver", "volume")
    assert usual is not None
    assert (usual.median, usual.spread, usual.cases) == (2.0, pytest.approx(1.4826 * 1.6), 5)
    assert usual.z(2 + 1.4826 * 1.6 * 3) == pytest.approx(3.0)


def test_equal_labels_leave_the_least_spread() -> None:
    rows = [row("liver", case, ml=1000.0, hu_mean=80.0) for case in range(9)]
    found = summarise(pd.DataFrame(rows), {f"set/{case}": SPACING for case in range(9)}).figures["liver"]
    assert {name: found[name].spread for name in found} == {name: FLOORS[name] for name in found}


@pytest.mark.parametrize(
    ("figure", "changed", "sign"),
    [
        ("volume", {"ml": 4.0}, -1),
        ("volume", {"ml": 2000.0}, 1),
        ("hu_mean", {"hu_mean": -400.0}, -1),
        ("components", {"components": 5}, 1),
        ("x", {"centroid_mm": [130.0, 20.0, 150.0]}, 1),
        ("z", {"centroid_mm": [-50.0, 20.0, -60.0]}, -1),
    ],
)
def test_an_odd_figure_stands_out(
    reference: HumanReference, quality: ScanQuality, figure: str, changed: dict[str, Any], sign: int
) -> None:
    rows = case_rows(spleen=changed)
    assert sign * z_of(rows, "spleen", reference, quality)[figure] > 6
    # what lies where it should is not blamed for the one that does not
    assert all(abs(value) < 4 for value in z_of(rows, "liver", reference, quality).values())


def test_the_border_excuses_a_small_volume_and_the_place_along_the_cut(
    reference: HumanReference, quality: ScanQuality
) -> None:
    cut = {"ml": 4.0, "touches_border": True, "bbox": [10, 10, 90, 20, 20, SHAPE[2]]}
    found = z_of(case_rows(spleen=cut), "spleen", reference, quality)
    assert set(found) == {"hu_mean", "components", "border", "x", "y"}
    assert found["border"] > 3  # no human label of these scans touches it
    assert z_of(case_rows(spleen={**cut, "ml": 5000.0}), "spleen", reference, quality)["volume"] > 6


def test_few_human_labels_give_way_to_the_ranges_of_the_taxonomy(quality: ScanQuality) -> None:
    nothing = HumanReference()
    rows = case_rows(spleen={"ml": 1200.0, "hu_mean": 20.0, "components": 3})
    # spleen: 30 to 1200 ml and 20 to 250 HU, each bound three spreads from the middle; one part
    assert z_of(rows, "spleen", nothing, quality) == pytest.approx({"volume": 3.0, "hu_mean": -3.0, "components": 2.0})


def test_an_organ_that_everybody_has_is_missed_where_the_scan_shows_its_place(
    reference: HumanReference, quality: ScanQuality
) -> None:
    gone = {"voxels": 0, "ml": 0.0, "hu_mean": None, "centroid_mm": None, "bbox": None, "components": 0}
    flags = missing_organs(case_rows(102, spleen=gone), reference, quality)
    assert set(flags) == {"spleen"}
    assert "missing: no spleen found, though 25 of 25 human labels show one" in flags["spleen"]
    assert missing_organs(case_rows(102), reference, quality) == {}


def test_an_organ_beyond_the_scan_is_not_missed(reference: HumanReference, quality: ScanQuality) -> None:
    gone = {"voxels": 0, "ml": 0.0, "hu_mean": None, "centroid_mm": None, "bbox": None, "components": 0}
    low = ScanQuality(
        (80, 60, 40), quality.affine, quality.hu, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0), 0.0
    )  # ends at z = 35 mm
    assert missing_organs(case_rows(102, spleen=gone), reference, low) == {}


def test_sides_exchanged_in_most_pairs_are_a_mirrored_scan() -> None:
    rows = case_rows()
    assert mirror_flag(rows) is None
    mirrored = {
        name: {**one, "centroid_mm": [-one["centroid_mm"][0], *one["centroid_mm"][1:]]} for name, one in rows.items()
    }
    flag = mirror_flag(mirrored)
    assert flag is not None
    assert flag.startswith("mirrored: 4 of 4 pairs lie the wrong way round, such as liver at x = ")
    # one organ on the wrong side is that organ's fault
    assert mirror_flag({**rows, "spleen": mirrored["spleen"]}) is None


def test_a_spleen_where_the_liver_lies_is_perhaps_a_mirrored_scan() -> None:
    # As a network that knows its sides labels one: liver and spleen in their places, but as large as each other.
    flag = mirror_flag(case_rows(99, liver={"ml": 800.0}, spleen={"ml": 800.0}))
    assert flag is not None
    assert flag.startswith("mirrored_perhaps: liver (800 ml) and spleen (800 ml) together lie ")
    assert mirror_flag(case_rows(99, spleen={"ml": 700.0})) is None
    # Or with the liver where it lies in truth, which is left of the middle, and a small spleen.
    rows = case_rows(99)
    y, z = rows["liver"]["centroid_mm"][1:]
    left = mirror_flag({**rows, "liver": {**rows["liver"], "centroid_mm": [-30.0, y, z]}})
    assert left is not None
    assert left.startswith("mirrored_perhaps: ")


def test_scores_of_a_case_join_what_the_network_and_the_masks_say(
    reference: HumanReference, quality: ScanQuality
) -> None:
    names = tuple(PLACES)
    scores = Scores(
        dict.fromkeys(names, 0.9), {}, (), dict.fromkeys(names, 0.4) | {"aorta": math.nan}, dict.fromkeys(names)
    )
    bits = np.zeros((1, 2, 2, 2), dtype=np.uint32)
    prediction = Prediction(bits, scores, Cleaned(bits, {"liver": 250}, {"liver": 50}, {}))
    found = score_labels(list(case_rows().values()), prediction, reference, quality, independent=False)
    assert set(found) == set(names)
    liver = found["liver"]
    assert (liver.mean_prob, liver.boundary_entropy, liver.agreement) == (0.9, 0.4, None)
    assert liver.removed_share == pytest.approx(250 / 1200)
    assert found["aorta"].boundary_entropy is None
    assert not liver.independent
    assert liver.flags == quality.flags
    assert liver.to_dict()["z"] == liver.z


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (((0, 0, 5), (4, 0, 0), (0, 3, 0)), (5.0, 4.0, 3.0)),
        (((-2, 0.1, 0), (0.1, 2.5, 0), (0, 0, -3)), (2.0, 2.5, 3.0)),
    ],
)
def test_spacing_is_told_along_the_patients_axes(columns: Any, expected: tuple[float, float, float]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = columns
    assert _original_spacing(affine.ravel().tolist()) == pytest.approx(expected, abs=0.01)
