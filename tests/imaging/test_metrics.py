"""Dice and surface Dice of two masks against hand-worked values and the surface-distance package."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imaging.metrics import dice, distances, surface_dice

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:surface_distance")


def peer(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: tuple[float, float, float], tolerance: float) -> float:
    measured = surface_distance.compute_surface_distances(a, b, spacing)
    return float(surface_distance.compute_surface_dice_at_tolerance(measured, tolerance))


def block(low: tuple[int, int, int], high: tuple[int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((14, 12, 10), dtype=bool)
    mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return mask


def test_dice_by_hand() -> None:
    a, b = block((0, 0, 0), (2, 2, 2)), block((1, 0, 0), (4, 2, 2))  # 8 and 12 voxels, 4 shared
    assert dice(a, b) == pytest.approx(8 / 20)
    assert dice(a, a) == 1.0


def test_empty_masks_are_stated() -> None:
    empty, full = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    assert math.isnan(dice(empty, empty))
    assert dice(empty, full) == 0.0
    assert math.isnan(surface_dice(empty, empty, (1, 1, 1), 1.0))
    assert surface_dice(empty, full, (1, 1, 1), 1.0) == 0.0
    assert surface_dice(full, empty, (1, 1, 1), 1.0) == 0.0


def test_two_single_voxels_two_steps_apart_in_5_mm_slices() -> None:
    # two equal closed surfaces, 10 mm apart: the nearest elements of each are 5 mm from the other's
    a, b = block((5, 5, 3), (6, 6, 4)), block((5, 5, 5), (6, 6, 6))
    assert surface_dice(a, b, (1.0, 2.0, 5.0), 4.9) == 0.0
    assert surface_dice(a, b, (1.0, 2.0, 5.0), 5.0) == pytest.approx(0.5)
    assert surface_dice(a, b, (1.0, 2.0, 5.0), 10.0) == 1.0


def test_plates_shifted_along_each_axis_see_that_axis_spacing() -> None:
    for axis, distance in enumerate((1.0, 2.0, 5.0)):
        a = block((4, 4, 4), (8, 8, 7))
        b = np.roll(a, 1, axis=axis)
        assert surface_dice(a, b, (1.0, 2.0, 5.0), distance) == 1.0
        assert surface_dice(a, b, (1.0, 2.0, 5.0), distance - 0.01) < 1.0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.floats(0.3, 6.0)] * 3),
    st.floats(0.0, 9.0),
    st.floats(0.02, 0.9),
)
def test_equal_to_the_surface_distance_package(
    seed: int, spacing: tuple[float, float, float], tolerance: float, density: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((7, 8, 9)) < density, rng.random((7, 8, 9)) < density
    if a.any() and b.any():
        assert surface_dice(a, b, spacing, tolerance) == pytest.approx(peer(a, b, spacing, tolerance), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.tuples(*[st.sampled_from([0.5, 1.0, 1.5, 3.0])] * 3), st.sampled_from([1.0, 1.5, 3])
)
def test_tolerance_equal_to_a_distance_counts_as_in_the_package(
    seed: int, spacing: tuple[float, float, float], tolerance: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((6, 6, 6)) < 0.1, rng.random((6, 6, 6)) < 0.1
    if a.any() and b.any():
        assert surface_dice(a, b, spacing, tolerance) == pytest.approx(peer(a, b, spacing, tolerance), abs=1e-6)


@pytest.mark.parametrize("tolerance", [0.0, 1.1, 1.3, 2.2, 2.5, 2.6, 3.3000000000000003, 7.5])
def test_where_distances_come_from_does_not_matter(monkeypatch: pytest.MonkeyPatch, tolerance: float) -> None:
    # tolerances that float32 has not; steps, then the transform with a tree where it is unsure, then a tree for all
    rng = np.random.default_rng(5)
    pairs = [(rng.random((9, 8, 7)) < 0.01, rng.random((9, 8, 7)) < 0.01) for _ in range(10)]
    stepped = [surface_dice(a, b, (1.1, 1.3, 2.5), tolerance) for a, b in pairs]
    monkeypatch.setattr(distances, "LOOKS_PER_CORNER", 0)
    assert [surface_dice(a, b, (1.1, 1.3, 2.5), tolerance) for a, b in pairs] == pytest.approx(stepped, abs=1e-12)
    monkeypatch.setattr(distances, "CORNERS_PER_SEARCH", 0)
    assert [surface_dice(a, b, (1.1, 1.3, 2.5), tolerance) for a, b in pairs] == pytest.approx(stepped, abs=1e-12)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_the_order_of_axes_in_memory_does_not_matter(axes: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 6, 7, 8)) < 0.4
    back = np.argsort(axes)
    turned = [np.ascontiguousarray(mask.transpose(axes)).transpose(back) for mask in (a, b)]
    assert surface_dice(*turned, (0.5, 1.5, 4.0), 1.0) == pytest.approx(
        surface_dice(a, b, (0.5, 1.5, 4.0), 1.0), abs=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_symmetric_one_for_itself_and_unmoved_by_padding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((5, 6, 7)) < 0.3, rng.random((5, 6, 7)) < 0.3
    spacing = (0.8, 1.1, 3.0)
    value = surface_dice(a, b, spacing, 1.2)
    assert surface_dice(b, a, spacing, 1.2) == pytest.approx(value)
    assert surface_dice(a, a, spacing, 0.0) == 1.0
    assert surface_dice(np.pad(a, 4), np.pad(b, 4), spacing, 1.2) == pytest.approx(value)


def test_wrong_arguments_are_named() -> None:
    a = block((0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match=r"\(14, 12, 10\) and bool of shape \(14, 12, 9\)"):
        dice(a, a[:, :, :9])
    with pytest.raises(ValueError, match="uint8"):
        surface_dice(a.astype(np.uint8), a, (1, 1, 1), 1.0)
    with pytest.raises(ValueError, match="tolerance_mm -1"):
        surface_dice(a, a, (1, 1, 1), -1.0)
