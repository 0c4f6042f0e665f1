"""Left and right by the middle of the body."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import oriented_affine
from numpy.typing import NDArray

from imaging.resample import orient_ras
from imaging.sides import body_midline_x, split_sides
from imaging.volume import Volume

AFFINE = oriented_affine((4.0, 4.0, 5.0), (-60.0, -40.0, 200.0))
SHAPE = (31, 21, 8)
FLAT = np.zeros(SHAPE[2])  # the middle of the body at x = 0 mm, voxel 15


def mask_of(*boxes: tuple[slice, slice, slice]) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


LEFT_KIDNEY = (slice(5, 9), slice(5, 9), slice(2, 6))  # x = -40..-28 mm
RIGHT_KIDNEY = (slice(21, 25), slice(5, 9), slice(1, 5))  # x = 24..36 mm


def test_larger_x_is_the_patients_right() -> None:
    split = split_sides(mask_of(LEFT_KIDNEY, RIGHT_KIDNEY), AFFINE, FLAT)
    assert split.status == "two"
    assert np.array_equal(split.right, mask_of(RIGHT_KIDNEY))
    assert np.array_equal(split.left, mask_of(LEFT_KIDNEY))


@pytest.mark.parametrize(("box", "status"), [(LEFT_KIDNEY, "left_only"), (RIGHT_KIDNEY, "right_only")])
def test_one_kidney_goes_to_its_side(box: tuple[slice, slice, slice], status: str) -> None:
    split = split_sides(mask_of(box), AFFINE, FLAT)
    assert split.status == status
    assert (split.right if status == "right_only" else split.left).sum() == 64
    assert not (split.left if status == "right_only" else split.right).any()


def test_horseshoe_kidney_is_cut_at_the_middle() -> None:
    bridge = (slice(9, 21), slice(6, 7), slice(3, 4))
    mask = mask_of(LEFT_KIDNEY, RIGHT_KIDNEY, bridge)
    split = split_sides(mask, AFFINE, FLAT)
    assert split.status == "cut"
    # voxel 15 lies at x = 0: on the line, which counts as right
    assert np.argwhere(split.right)[:, 0].min() == 15
    assert np.argwhere(split.left)[:, 0].max() == 14


def test_touching_lungs_are_cut_where_the_body_curves() -> None:
    mask = mask_of((slice(4, 27), slice(4, 15), slice(0, 8)))
    midline = np.array([0.0] * 4 + [8.0] * 4)  # the middle moves two voxels to the right
    split = split_sides(mask, AFFINE, midline)
    assert split.status == "cut"
    assert np.argwhere(split.right[:, :, :4])[:, 0].min() == 15
    assert np.argwhere(split.right[:, :, 4:])[:, 0].min() == 17


def test_part_reaching_a_little_over_the_middle_stays_whole() -> None:
    mask = mask_of((slice(14, 25), slice(5, 6), slice(3, 4)))  # 1 of 11 voxels left of the middle: 9 %
    split = split_sides(mask, AFFINE, FLAT)
    assert split.status == "right_only"
    assert np.array_equal(split.right, mask)


def test_empty_mask() -> None:
    split = split_sides(mask_of(), AFFINE, FLAT)
    assert split.status == "empty"
    assert not split.right.any()
    assert not split.left.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.005, 0.3))
def test_every_voxel_is_on_exactly_one_side(seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random(SHAPE) < density
    split = split_sides(mask, AFFINE, FLAT)
    assert np.array_equal(split.right | split.left, mask)
    assert not (split.right & split.left).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_mirrored_mask_has_mirrored_sides(seed: int) -> None:
    # a midline between two voxels, so that no voxel lies on it
    mask = np.random.default_rng(seed).random((30, 5, 6)) < 0.05
    affine = oriented_affine((4.0, 4.0, 5.0), (-58.0, 0.0, 0.0))
    plain = split_sides(mask, affine, np.zeros(6))
    mirrored = split_sides(mask[::-1], affine, np.zeros(6))
    assert np.array_equal(plain.right, mirrored.left[::-1])


def body(centre_mm: float, arms: bool = False, lungs: bool = False) -> Volume:
    """An elliptic trunk 200 mm wide around x = centre_mm in a 4 mm grid, in air."""
    shape = (101, 51, 12)
    affine = oriented_affine((4.0, 4.0, 4.0), (-200.0, -100.0, 0.0))
    x = np.arange(shape[0]) * 4.0 - 200.0
    y = np.arange(shape[1]) * 4.0 - 100.0
    trunk = ((x[:, None] - centre_mm) / 100.0) ** 2 + (y / 70.0) ** 2 < 1
    plane = np.where(trunk, 40, -1000)
    if lungs:  # the right one larger
        plane[((x[:, None] - centre_mm - 45) / 30) ** 2 + (y / 50) ** 2 < 1] = -850
        plane[((x[:, None] - centre_mm + 50) / 20) ** 2 + (y / 40) ** 2 < 1] = -850
    if arms:  # one arm, on the left
        plane[((x[:, None] - centre_mm + 130) / 20) ** 2 + (y / 20) ** 2 < 1] = 40
    return Volume(np.repeat(plane[:, :, None], shape[2], axis=2).astype(np.int16), affine)


@pytest.mark.parametrize("centre", [0.0, 22.0, -34.0])
@pytest.mark.parametrize(("arms", "lungs"), [(False, False), (True, False), (False, True)])
def test_midline_is_the_middle_of_the_trunk(centre: float, arms: bool, lungs: bool) -> None:
    midline = body_midline_x(body(centre, arms, lungs))
    assert midline.shape == (12,)
    assert np.abs(midline - centre).max() <= 2.0


def test_midline_of_a_mirrored_body_is_mirrored() -> None:
    scan = body(30.0, arms=True)
    mirrored = Volume(scan.array[::-1], scan.affine)
    assert body_midline_x(mirrored) == pytest.approx(-body_midline_x(scan), abs=0.5)


def test_slices_without_body_take_their_neighbours_middle() -> None:
    scan = body(20.0)
    empty = scan.array.copy()
    empty[:, :, :4] = -1000
    assert np.abs(body_midline_x(scan.with_array(empty)) - 20.0).max() <= 2.0
    assert body_midline_x(scan.with_array(np.full_like(empty, -1000))) == pytest.approx(np.zeros(12))


def test_midline_wants_ras() -> None:
    scan = body(0.0)
    flipped = Volume(scan.array[::-1], scan.affine @ np.diag([-1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="orientation LAS"):
        body_midline_x(flipped)
    assert body_midline_x(orient_ras(flipped)).shape == (12,)


def test_midline_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="one x per axial slice"):
        split_sides(mask_of(), AFFINE, np.zeros(3))
