"""Pixels inside polygons: centre rule, holes, keyholes, shared edges, and agreement with brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imaging.polygons import fill_polygons

SHAPE = (9, 7)


def square(low: float, high: float) -> NDArray[np.float64]:
    return np.array([[low, low], [low, high], [high, high], [high, low]])


def by_cross_products(corners: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Inside of a convex polygon, pixel by pixel: the centre lies on one side of every edge."""
    centres = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1).astype(float)
    edges = np.roll(corners, -1, axis=0) - corners
    away = centres[:, :, None] - corners
    cross = edges[:, 0] * away[..., 1] - edges[:, 1] * away[..., 0]
    return (cross > 0).all(axis=-1) | (cross < 0).all(axis=-1)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.floats(-3, 11), st.floats(-3, 9)),
    st.floats(0.4, 7),
    st.floats(0.4, 7),
    st.lists(st.floats(0, 6.283), min_size=3, max_size=9, unique=True),
)
def test_convex_polygons_agree_with_brute_force(
    centre: tuple[float, float], a: float, b: float, angles: list[float]
) -> None:
    around = np.sort(np.array(angles))
    corners = np.stack([centre[0] + a * np.cos(around), centre[1] + b * np.sin(around)], axis=1)
    # centres closer to an edge than the arithmetic can tell are either
    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(edges, axis=1)
    if lengths.min() < 1e-3:
        return
    centres = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    away = centres[:, :, None] - corners
    distance = np.abs(edges[:, 0] * away[..., 1] - edges[:, 1] * away[..., 0]) / lengths
    clear = distance.min(axis=-1) > 1e-6
    for turned in (corners, corners[::-1]):
        assert np.array_equal(fill_polygons([turned], SHAPE)[clear], by_cross_products(corners, SHAPE)[clear])


def test_pixel_is_inside_when_its_centre_is() -> None:
    filled = fill_polygons([square(0.51, 3.49)], SHAPE)
    assert np.argwhere(filled).tolist() == [[a, b] for a in (1, 2, 3) for b in (1, 2, 3)]
    assert not fill_polygons([square(1.2, 1.8)], SHAPE).any()


def test_centre_on_an_edge_belongs_to_one_of_two_neighbours() -> None:
    left, right = np.array([[0, 0], [0, 3], [4, 3], [4, 0]]), np.array([[0, 3], [0, 6], [4, 6], [4, 3]])
    one, other = (fill_polygons([polygon.astype(float)], SHAPE) for polygon in (left, right))
    assert not (one & other).any()
    assert np.argwhere(one | other).tolist() == [[a, b] for a in range(4) for b in range(6)]
    assert not one[:, 3].any()


def test_nested_polygons_are_a_ring_and_an_island() -> None:
    filled = fill_polygons([square(-0.5, 6.5), square(0.5, 5.5), square(2.5, 3.5)], (7, 7))
    assert filled.sum() == 49 - 25 + 1
    assert filled[0, 3]
    assert not filled[1, 3]
    assert filled[3, 3]


def test_keyhole_leaves_the_hole_open_and_its_slit_closed() -> None:
    # an outer square, a slit along line a = 3 (through pixel centres) to an inner square and back
    keyhole = np.array(
        [[-0.5, -0.5], [6.5, -0.5], [6.5, 6.5], [3, 6.5], [3, 4.5], [4.5, 4.5], [4.5, 1.5], [1.5, 1.5], [1.5, 4.5],
         [3, 4.5], [3, 6.5], [-0.5, 6.5]]
    )  # fmt: skip
    filled = fill_polygons([keyhole], (7, 7))
    assert filled.sum() == 49 - 9
    assert not filled[2:5, 2:5].any()
    assert filled[3, 5]


def test_concave_polygon_and_part_outside_the_grid() -> None:
    letter_u = np.array([[-4, -4], [12, -4], [12, 12], [-4, 12], [-4, 4.5], [6.5, 4.5], [6.5, 1.5], [-4, 1.5]])
    filled = fill_polygons([letter_u.astype(float)], SHAPE)
    expected = np.ones(SHAPE, dtype=bool)
    expected[:7, 2:5] = False
    assert np.array_equal(filled, expected)


def test_nothing_to_fill() -> None:
    assert not fill_polygons([], SHAPE).any()
    assert not fill_polygons([np.array([[1.0, 1.0], [4.0, 4.0], [2.0, 2.0]])], SHAPE).any()
