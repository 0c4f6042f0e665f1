"""Each oddity gives its own flag, and a healthy case none."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_registry.card_parts import SpacingFault
from tasks.plausibility import LEAST_VOXELS, plausibility_flags

FAULT = SpacingFault(case_ids=["28"], reason="identity affine", confidence="seen")


def row(name: str, x: float, ml: float, hu: float, **changes: Any) -> dict[str, Any]:
    return {
        "class_name": name, "voxels": 1000, "ml": ml, "hu_mean": hu, "centroid_mm": [x, 0.0, 0.0],
        "touches_border": False, **changes,
    }  # fmt: skip


HEALTHY = [
    row("liver", 60, 1500, 100),
    row("spleen", -80, 200, 110),
    row("right_kidney", 50, 150, 150),
    row("left_kidney", -55, 160, 150),
    row("gall_bladder", 0, 0, 0, voxels=0, hu_mean=None, centroid_mm=None),
]


def test_a_healthy_case_has_no_flag() -> None:
    assert plausibility_flags(HEALTHY, 0.003, None) == []


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        (row("liver", 60, 12.0, 100), "volume: liver 12.0 ml, usual 500 to 4500 ml"),
        (row("liver", 60, 1500, -900), "hu: liver -900 HU in the mean, usual -40 to 250 HU"),
        (row("liver", -90, 1500, 100), "side: liver at x = -90 mm, spleen at x = -80 mm, usual the other way round"),
        (
            row("right_kidney", -60, 150, 150),
            "side: right_kidney at x = -60 mm, left_kidney at x = -55 mm, usual the other way round",
        ),
    ],
)
def test_an_oddity_is_named_with_what_is_usual(changed: dict[str, Any], flag: str) -> None:
    rows = [changed if changed["class_name"] == one["class_name"] else one for one in HEALTHY]
    assert plausibility_flags(rows, 0.003, None) == [flag]


def test_what_the_scan_cuts_off_is_not_judged_by_its_volume() -> None:
    assert plausibility_flags([row("liver", 60, 12.0, 100, touches_border=True)], 0.003, None) == []


def test_a_few_voxels_are_not_judged_by_their_hu() -> None:
    rows = [row("celiac_trunk", 0, 1, 2000, voxels=LEAST_VOXELS - 1)]
    assert plausibility_flags(rows, 0.003, None) == []


def test_false_spacing_is_flagged_and_volumes_are_not_judged() -> None:
    assert plausibility_flags([row("liver", 60, 12.0, 100)], 0.003, FAULT) == ["spacing_unreliable: identity affine"]
