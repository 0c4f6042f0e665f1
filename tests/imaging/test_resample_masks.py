"""Masks brought onto another grid: smooth and unbiased, never flipped, the same voxels where grids only turn."""

from __future__ import annotations

import numpy as np
import pytest
from imaging_samples import ORIENTATIONS, oriented_affine, turned_affine, world_of
from numpy.typing import NDArray

from imaging.bits import Bits, empty_bits, get_channel, set_channel
from imaging.metrics import dice
from imaging.resample import Grid, grid_for, orient_ras, resample_bits
from imaging.resample_masks import SLAB_VOXELS, BoxedField, resample_masks
from imaging.volume import Affine, Volume


def bits_of(masks: dict[int, NDArray[np.bool_]]) -> Bits:
    shape = next(iter(masks.values())).shape
    bits = empty_bits(shape, max(masks) + 1)
    for channel, mask in masks.items():
        set_channel(bits, channel, mask)
    return bits


def ball(shape: tuple[int, int, int], affine: Affine, centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.linalg.norm(world_of(shape, affine) - centre, axis=-1) < radius
    return inside


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_turned_and_flipped_grids_give_exactly_the_mask(order: tuple[int, ...], signs: tuple[float, ...]) -> None:
    affine = oriented_affine((0.8, 1.3, 2.5), (11.0, -7.0, 3.0), order, signs)
    rng = np.random.default_rng(5)
    mask = rng.random((5, 6, 4)) < 0.4
    raw = Volume(mask, affine)
    upright = orient_ras(raw)
    back = resample_masks(bits_of({0: upright.array, 33: ~upright.array}), upright.affine, Grid.of(raw))
    assert np.array_equal(get_channel(back, 0), mask)
    assert np.array_equal(get_channel(back, 33), ~mask)


def test_half_way_is_decided_by_the_nearest_and_more_than_half_by_itself() -> None:
    # source voxels at 0, 2, 4, 6 mm; target every mm: at 3 mm the share is a half, the nearest (higher) voxel decides
    mask = np.array([0, 1, 1, 0], dtype=bool).reshape(4, 1, 1)
    target = Grid((7, 1, 1), np.diag([1.0, 1.0, 1.0, 1.0]))
    found = resample_masks(bits_of({2: mask}), np.diag([2.0, 1.0, 1.0, 1.0]), target)
    assert get_channel(found, 2)[:, 0, 0].tolist() == [False, True, True, True, True, False, False]


def test_neighbours_stay_neighbours_and_lesions_stay_inside() -> None:
    rng = np.random.default_rng(2)
    first = rng.random((7, 6, 5)) < 0.5
    lesion = first & (rng.random(first.shape) < 0.5)
    target = grid_for(Volume(first, np.diag([3.0, 3.0, 4.0, 1.0])), (1.1, 0.7, 1.9))
    found = resample_masks(bits_of({0: first, 1: ~first, 2: lesion}), np.diag([3.0, 3.0, 4.0, 1.0]), target)
    a, b, inside = (get_channel(found, channel) for channel in range(3))
    assert not (a & b).any()
    assert (a | b).all()
    assert not (inside & ~a).any()
    assert inside.any()


def test_oblique_and_sheared_grids_keep_side_and_size() -> None:
    lake = np.diag([2.0, 2.0, 2.0, 1.0])
    lake[:3, 3] = (-40.0, -30.0, -20.0)
    shape = (40, 36, 36)
    right, left = ball(shape, lake, (-20.0, 0.0, 12.0), 9.0), ball(shape, lake, (16.0, 4.0, 12.0), 7.0)
    tilted = oriented_affine((1.2, 1.4, 3.0), (-35.0, -25.0, -10.0))
    tilted[1, 2] = 0.8
    for affine in (turned_affine((1.3, 1.1, 1.7), 13.0) @ np.diag([1, 1, 1, 1.0]), tilted):
        affine[:3, 3] = (-38.0, -26.0, -14.0)
        grid = Grid((60, 48, 40), affine)
        found = resample_masks(bits_of({0: right, 1: left}), lake, grid)
        for channel, centre, radius in ((0, (-20.0, 0.0, 12.0), 9.0), (1, (16.0, 4.0, 12.0), 7.0)):
            assert dice(get_channel(found, channel), ball(grid.shape, affine, centre, radius)) > 0.93


def test_smooth_form_is_nearer_to_the_truth_than_nearest() -> None:
    fine, coarse = np.diag([1.0, 1.0, 1.0, 1.0]), np.diag([3.0, 3.0, 3.0, 1.0])
    centre, radius = (24.3, 22.9, 25.1), 14.0
    truth = ball((48, 48, 48), fine, centre, radius)
    bits = bits_of({0: ball((17, 17, 17), coarse, centre, radius)})
    grid = Grid((48, 48, 48), fine)
    linear = dice(truth, get_channel(resample_masks(bits, coarse, grid), 0))
    nearest = dice(truth, get_channel(resample_bits(bits, coarse, grid), 0))
    assert linear > nearest + 0.005
    assert np.array_equal(resample_masks(bits, coarse, grid, form="nearest"), resample_bits(bits, coarse, grid))


def test_probability_is_better_still_and_never_undoes_cleaning() -> None:
    fine, coarse = np.diag([1.0, 1.0, 1.0, 1.0]), np.diag([3.0, 3.0, 3.0, 1.0])
    centre, radius = (24.3, 22.9, 25.1), 14.0
    truth = ball((48, 48, 48), fine, centre, radius)
    distance = np.linalg.norm(world_of((17, 17, 17), coarse) - centre, axis=-1)
    prob = 1 / (1 + np.exp((distance - radius) / 1.5))
    mask = prob > 0.5
    mask[2:4, :, :] = False  # taken away by a rule
    field = BoxedField((0, 0, 0, 17, 17, 17), np.rint(prob * 255).astype(np.uint8))
    grid = Grid((48, 48, 48), fine)
    found = get_channel(
        resample_masks(bits_of({0: mask}), coarse, grid, form="probability", probabilities={0: field}), 0
    )
    linear = get_channel(resample_masks(bits_of({0: mask}), coarse, grid), 0)
    kept = np.s_[13:]
    assert dice(truth[kept], found[kept]) > dice(truth[kept], linear[kept]) + 0.005
    assert not found[6:10].any()
    on_itself = resample_masks(bits_of({0: mask}), coarse, Grid((17, 17, 17), coarse), form="probability",
                               probabilities={0: field})  # fmt: skip
    assert np.array_equal(get_channel(on_itself, 0), mask)


def test_parts_of_a_large_target_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SLAB_VOXELS == 2**24
    mask = np.random.default_rng(1).random((9, 8, 7)) < 0.5
    grid = Grid((20, 17, 30), oriented_affine((0.9, 0.9, 0.45), (0.2, 0.1, -0.3)))
    whole = resample_masks(bits_of({3: mask}), np.diag([2.0, 2.0, 2.0, 1.0]), grid)
    monkeypatch.setattr("imaging.resample_masks.SLAB_VOXELS", 700)
    assert np.array_equal(resample_masks(bits_of({3: mask}), np.diag([2.0, 2.0, 2.0, 1.0]), grid), whole)


def test_mask_beyond_the_target_and_empty_bits_give_nothing() -> None:
    far = Grid((3, 3, 3), oriented_affine((1.0, 1.0, 1.0), (500.0, 0.0, 0.0)))
    mask = np.ones((2, 2, 2), dtype=bool)
    assert not resample_masks(bits_of({0: mask}), np.eye(4), far).any()
    assert resample_masks(empty_bits((2, 2, 2), 40), np.eye(4), far).shape == (2, 3, 3, 3)
