"""Grids and resampling: every voxel keeps its place in the patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import (
    GRADIENT,
    ORIENTATIONS,
    linear_scan,
    oriented_affine,
    step_names,
    turned_affine,
    world_of,
)
from numpy.typing import NDArray

from imaging.resample import (
    Grid,
    grid_for,
    is_axis_aligned,
    orient_ras,
    orientation,
    resample_bits,
    resample_image,
    resample_nearest,
    shear_degrees,
    straighten,
)
from imaging.volume import Affine, Volume

orientations = st.sampled_from(ORIENTATIONS)
spacings = st.tuples(*[st.floats(0.5, 5.0)] * 3)
shapes = st.tuples(*[st.integers(2, 7)] * 3)


def inside_hull(volume: Volume, grid: Grid) -> NDArray[np.bool_]:
    """Which grid voxels lie between voxel centres of the volume, where linear interpolation is exact."""
    index = (world_of(grid.shape, grid.affine) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
    return np.asarray(((index >= -1e-6) & (index <= np.array(volume.shape) - 1 + 1e-6)).all(axis=-1))


@settings(max_examples=150, deadline=None)
@given(orientations, spacings, shapes)
def test_orient_ras_keeps_value_and_place_of_every_voxel(
    turn: tuple[tuple[int, ...], tuple[float, ...]], spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    scan = linear_scan(shape, oriented_affine(spacing, (-5.0, 40.0, 3.0), *turn))
    ras = orient_ras(scan)
    assert orientation(ras.affine) == "RAS"
    assert np.allclose(ras.array, world_of(ras.shape, ras.affine) @ GRADIENT, atol=1e-3)
    assert step_names(ras) == ([] if orientation(scan.affine) == "RAS" else ["orient_ras"])


@settings(max_examples=150, deadline=None)
@given(orientations, spacings, shapes, spacings)
def test_resample_keeps_world_coordinates(
    turn: tuple[tuple[int, ...], tuple[float, ...]],
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
    target: tuple[float, float, float],
) -> None:
    scan = linear_scan(shape, oriented_affine(spacing, (-5.0, 40.0, 3.0), *turn))
    grid = grid_for(scan, target)
    moved = resample_image(scan, grid)
    where = inside_hull(scan, grid)
    expected = world_of(grid.shape, grid.affine) @ GRADIENT
    assert where[0, 0, 0]
    assert moved.array.dtype == np.float32
    assert np.allclose(moved.array[where], expected[where], atol=2e-3)
    # the overhang holds the edge's values, never air
    assert moved.array.min() >= scan.array.min() - 1e-3


@settings(max_examples=150, deadline=None)
@given(orientations, spacings, shapes, spacings)
def test_nearest_takes_the_voxel_whose_centre_is_nearest(
    turn: tuple[tuple[int, ...], tuple[float, ...]],
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
    target: tuple[float, float, float],
) -> None:
    numbers = np.arange(1, np.prod(shape) + 1, dtype=np.uint32).reshape(shape)
    label = Volume(numbers, oriented_affine(spacing, (-5.0, 40.0, 3.0), *turn))
    grid = grid_for(label, target)
    moved = resample_nearest(label, grid)
    assert moved.array.dtype == np.uint32
    centres = world_of(shape, label.affine).reshape(-1, 3)
    points = world_of(grid.shape, grid.affine).reshape(-1, 3)
    chosen = centres[moved.array.ravel().astype(int) - 1]
    distance = np.abs(points - chosen).sum(axis=1)
    nearest = np.array([np.abs(points - centre).sum(axis=1) for centre in centres]).min(axis=0)
    assert np.allclose(distance, nearest, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(orientations, spacings, shapes)
def test_bits_go_to_a_finer_ras_grid_and_back_unchanged(
    turn: tuple[tuple[int, ...], tuple[float, ...]], spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, (2, *shape), dtype=np.uint32)
    scan = Volume(bits[0], oriented_affine(spacing, (9.0, -4.0, 2.0), *turn))
    finer = grid_for(scan, (min(spacing) / 2.1,) * 3)
    there = resample_bits(bits, scan.affine, finer)
    back = resample_bits(there, finer.affine, Grid.of(scan))
    assert there.shape == (2, *finer.shape)
    assert np.array_equal(back, bits)


def test_grid_keeps_the_first_ras_centre_and_counts_by_hand() -> None:
    # LPS, 11 x 7 x 5 voxels of 0.8 x 0.8 x 5 mm: extents 8.0, 4.8, 20 mm
    affine = oriented_affine((0.8, 0.8, 5.0), (100.0, 50.0, -300.0), signs=(-1.0, -1.0, 1.0))
    grid = grid_for(Volume(np.zeros((11, 7, 5)), affine), (1.5, 1.5, 1.5))
    # round(8 / 1.5) + 1 = 6, round(4.8 / 1.5) + 1 = 4, round(20 / 1.5) + 1 = 14
    assert grid.shape == (6, 4, 14)
    assert grid.spacing_mm == (1.5, 1.5, 1.5)
    assert grid.affine[:3, 3].tolist() == pytest.approx([92.0, 45.2, -300.0])


def test_linear_values_by_hand() -> None:
    scan = Volume(np.array([0, 10, 30], dtype=np.int16).reshape(3, 1, 1), np.diag([2.0, 1.0, 1.0, 1.0]))
    grid = Grid((6, 1, 1), np.diag([1.0, 1.0, 1.0, 1.0]))
    # centres at 0, 2, 4 mm; 5 mm is half a voxel beyond and holds the edge
    assert resample_image(scan, grid).array.ravel().tolist() == [0, 5, 10, 20, 30, 30]


def test_farther_than_half_a_voxel_is_outside() -> None:
    scan = Volume(np.full((3, 2, 2), 40, dtype=np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    affine = np.eye(4)
    affine[0, 3] = -3.0
    moved = resample_image(scan, Grid((11, 1, 1), affine)).array.ravel()
    assert moved.tolist() == [-1024, -1024, *[40] * 7, -1024, -1024]
    label = resample_nearest(scan, Grid((11, 1, 1), affine)).array.ravel()
    assert label.tolist() == [0, 0, *[40] * 7, 0, 0]


def test_same_grid_gives_the_same_voxels() -> None:
    values = np.random.default_rng(0).integers(-1024, 3000, (5, 6, 7)).astype(np.int16)
    affine = oriented_affine((0.7, 0.9, 3.0), (1.0, 2.0, 3.0), order=(1, 0, 2), signs=(-1.0, 1.0, -1.0))
    scan = Volume(values, affine)
    assert np.array_equal(resample_image(scan, Grid.of(scan)).array, values)
    assert np.array_equal(resample_nearest(scan, Grid.of(scan)).array, values)


def test_integers_are_rounded_to_int16_and_steps_written_down() -> None:
    scan = Volume(np.array([0, 3], dtype=np.int32).reshape(2, 1, 1), np.diag([3.0, 1.0, 1.0, 1.0]))
    moved = resample_image(scan, Grid((2, 1, 1), np.eye(4)))
    assert moved.array.dtype == np.int16
    assert moved.array.ravel().tolist() == [0, 1]
    assert moved.steps[-1].parameters == {"method": "linear", "shape": [2, 1, 1], "spacing_mm": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("degrees", [3.0, 14.0, 40.0])
def test_oblique_scan_is_covered_and_world_points_hold(degrees: float) -> None:
    scan = linear_scan((9, 10, 11), turned_affine((2.0, 1.5, 2.5), degrees))
    assert not is_axis_aligned(scan.affine, scan.shape)
    grid = grid_for(scan, (1.0, 1.0, 1.0))
    moved = resample_image(scan, grid)
    where = inside_hull(scan, grid)
    expected = world_of(grid.shape, grid.affine) @ GRADIENT
    assert np.allclose(moved.array[where], expected[where], atol=2e-2)
    # every corner of the scan lies within the grid
    index = (world_of(scan.shape, scan.affine) - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T
    assert index.min() >= -1e-6
    assert (index <= np.array(grid.shape) - 1 + 1e-6).all()
    assert moved.array[0, 0, 0] == -1024  # a corner of the bounding box


def test_oblique_bits_keep_the_highest_bit_and_are_zero_outside() -> None:
    bits = np.full((1, 6, 7, 8), 2**31 + 5, dtype=np.uint32)
    affine = turned_affine((2.0, 2.0, 2.0), 20.0)
    grid = grid_for(Volume(bits[0], affine), (2.0, 2.0, 2.0))
    moved = resample_bits(bits, affine, grid)
    assert set(np.unique(moved).tolist()) == {0, 2**31 + 5}
    assert moved.dtype == np.uint32


def sheared_affine(degrees: float) -> Affine:
    affine = np.diag([0.8, 0.9, 5.0, 1.0])
    affine[1, 2] = -5.0 * np.tan(np.radians(degrees))
    affine[:3, 3] = (-40.0, 10.0, 100.0)
    return affine


def test_straighten_undoes_a_shear_and_world_points_hold() -> None:
    scan = linear_scan((6, 20, 8), sheared_affine(14.0))
    assert shear_degrees(scan.affine) == pytest.approx(14.0)
    straight = straighten(scan)
    assert shear_degrees(straight.affine) == pytest.approx(0.0, abs=1e-6)
    assert straight.spacing_mm == pytest.approx((0.8, 0.9, 5.0))
    assert straight.steps[-1].parameters["degrees"] == pytest.approx(14.0)
    where = inside_hull(scan, Grid.of(straight))
    assert where.mean() > 0.5
    expected = world_of(straight.shape, straight.affine) @ GRADIENT
    assert np.allclose(straight.array[where], expected[where], atol=2e-2)


def test_straighten_leaves_an_orthogonal_volume_alone() -> None:
    scan = linear_scan((3, 4, 5), turned_affine((1.0, 2.0, 3.0), 30.0))
    assert straighten(scan) is scan


def test_straighten_by_nearest_makes_no_new_values() -> None:
    label = Volume(np.random.default_rng(0).choice([0, 7, 9], (6, 20, 8)).astype(np.uint8), sheared_affine(20.0))
    assert set(np.unique(straighten(label, nearest=True).array).tolist()) == {0, 7, 9}


def test_bad_arguments_say_what_was_given() -> None:
    scan = linear_scan((3, 4, 5), np.eye(4))
    with pytest.raises(ValueError, match="spacing_mm"):
        grid_for(scan, (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="nearest resampling is for integers"):
        resample_nearest(scan, Grid.of(scan))
    with pytest.raises(ValueError, match=r"grid of shape \(0, 1, 1\)"):
        Grid((0, 1, 1), np.eye(4))
    with pytest.raises(ValueError, match="grid affine"):
        Grid((1, 1, 1), np.zeros((4, 4)))


def test_single_slice_is_resampled_within_its_thickness() -> None:
    scan = Volume(np.full((4, 4, 1), 55, dtype=np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    grid = grid_for(scan, (1.5, 1.5, 1.5))
    assert grid.shape == (5, 5, 1)
    assert set(np.unique(resample_image(scan, grid).array).tolist()) == {55}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step_z", [0.4, 4.0])
def test_memory_order_and_direction_of_resampling_do_not_matter(order: str, step_z: float) -> None:
    scan = linear_scan((5, 6, 20), np.diag([1.1, 0.9, 1.0, 1.0]))
    arranged = Volume(scan.array.copy(order="C" if order == "C" else "F"), scan.affine)
    grid = grid_for(scan, (1.0, 1.0, step_z))
    expected = world_of(grid.shape, grid.affine) @ GRADIENT
    where = inside_hull(scan, grid)
    assert np.allclose(resample_image(arranged, grid).array[where], expected[where], atol=1e-3)
