"""The solids: known points inside and outside, boxes that hold them, and moving."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_registry.miniatures.geometry import Blob, Capsule, Loft, Solid, Tube


def inside(solid: Solid, *points: tuple[float, float, float]) -> list[bool]:
    x, y, z = np.array(points, dtype=np.float32).T
    return [bool(one) for one in solid.inside(x, y, z)]


def test_an_ellipsoid_reaches_its_radii_and_no_further() -> None:
    blob = Blob((10, 0, 0), (4, 2, 1))
    assert inside(blob, (13.9, 0, 0), (14.1, 0, 0), (10, 1.9, 0), (10, 0, 1.1)) == [True, False, True, False]


def test_a_rounded_box_holds_points_that_the_ellipsoid_misses() -> None:
    corner = (0.8, 0.8, 0.0)
    assert inside(Blob((0, 0, 0), (1, 1, 1)), corner) == [False]
    assert inside(Blob((0, 0, 0), (1, 1, 1), power=8), corner) == [True]


def test_a_positive_turn_about_z_brings_x_towards_y() -> None:
    rod = Blob((0, 0, 0), (10, 1, 1), tilt_deg=(0, 0, 90))
    assert inside(rod, (0, 9, 0), (9, 0, 0)) == [True, False]


def test_cuts_keep_the_half_space_below_their_offset() -> None:
    half = Blob((0, 0, 0), (5, 5, 5), cuts=((0, 0, 1, 2),))  # z <= 2
    assert inside(half, (0, 0, 1.9), (0, 0, 2.1)) == [True, False]
    moved = half.moved((0, 0, 0), 2.0, (0, 0, 1))  # z <= 5
    assert inside(moved, (0, 0, 4.9), (0, 0, 5.1)) == [True, False]


def test_a_capsule_widens_evenly_from_end_to_end() -> None:
    capsule = Capsule((0, 0, 0), (10, 0, 0), 1, 3)
    assert inside(capsule, (5, 1.9, 0), (5, 2.1, 0), (12.9, 0, 0), (-1.1, 0, 0)) == [True, False, True, False]


def test_a_tube_follows_its_points() -> None:
    tube = Tube(((0, 0, 0), (40, 0, 0), (40, 40, 0)), (5,))
    assert inside(tube, (20, 0, 0), (40, 30, 0), (10, 30, 0)) == [True, True, False]
    with pytest.raises(ValueError, match="2 radii"):
        Tube(((0, 0, 0), (1, 0, 0), (2, 0, 0)), (1, 2))


def test_a_loft_changes_with_height_and_ends() -> None:
    loft = Loft(((0, 0, 0, 10, 10), (10, 0, 0, 20, 10)))
    assert inside(loft, (15, 0, 9.9), (15, 0, 0.5), (0, 0, 10.5)) == [True, False, False]


SOLIDS: tuple[Solid, ...] = (
    Blob((5, -3, 2), (9, 4, 6), tilt_deg=(20, -35, 50)),
    Blob((5, -3, 2), (9, 4, 6), tilt_deg=(20, -35, 50), power=4),
    Tube(((-10, 0, 5), (0, 8, 0), (12, -4, -6)), (3, 5, 2)),
    Loft(((-8, 1, 0, 4, 6), (0, 2, 1, 7, 5), (9, 0, 0, 3, 3))),
)


@settings(max_examples=60, deadline=None)
@given(
    which=st.sampled_from(SOLIDS),
    scale=st.floats(0.5, 2.0),
    shift=st.tuples(*[st.floats(-20, 20)] * 3),
    seed=st.integers(0, 1000),
)
def test_boxes_hold_the_solid_and_moving_moves_its_points(
    which: Solid, scale: float, shift: tuple[float, float, float], seed: int
) -> None:
    about = (1.0, 2.0, 3.0)
    points = np.random.default_rng(seed).uniform(-25, 25, (400, 3))
    before = which.inside(*points.astype(np.float32).T)
    low, high = which.bounds()
    assert (points[before] >= np.array(low) - 1e-3).all()
    assert (points[before] <= np.array(high) + 1e-3).all()
    there = np.array(about) + scale * (points - np.array(about)) + np.array(shift)
    after = which.moved(about, scale, shift).inside(*there.astype(np.float32).T)
    # tubes are cut into stretches, lofts into 1 mm steps, so a scaled one differs slightly at its surface
    assert np.mean(before != after) < 0.03
