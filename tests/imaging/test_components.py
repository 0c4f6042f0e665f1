"""Parts of masks and the figures kept about them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imaging_samples import oriented_affine
from scipy import ndimage

from imaging.components import bounding_box, count_components, largest_components, mask_statistics


def three_parts() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros((8, 7, 6), dtype=bool)
    mask[0, 0, 0] = True
    mask[1, 1, 1] = True  # touches the first by a corner: one part of 2 voxels
    mask[4:7, 2, 2] = True  # 3 voxels
    mask[6, 5, 5] = True  # 1 voxel
    return mask


def test_corner_neighbours_are_one_part() -> None:
    assert count_components(three_parts()) == 3


def test_largest_components_keeps_by_size() -> None:
    mask = three_parts()
    assert np.argwhere(largest_components(mask, 1)).tolist() == [[4, 2, 2], [5, 2, 2], [6, 2, 2]]
    assert largest_components(mask, 2).sum() == 5
    assert np.array_equal(largest_components(mask, 9), mask)
    with pytest.raises(ValueError, match="keep 0"):
        largest_components(mask, 0)


def test_empty_mask_has_no_box_and_no_parts() -> None:
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert bounding_box(empty) is None
    assert count_components(empty) == 0
    assert not largest_components(empty, 1).any()
    found = mask_statistics(empty, np.eye(4), sample=5, seed=0)
    assert (found.voxels, found.ml, found.bbox, found.centroid_mm, found.components) == (0, 0.0, None, None, 0)
    assert not found.touches_border
    assert found.sampled_voxels.shape == (0, 3)


def test_statistics_of_a_bar_worked_out_by_hand() -> None:
    # voxels (1..3, 2, 4) on a grid of 2 x 3 x 5 mm whose x runs to the left: centre (2, 2, 4)
    mask = np.zeros((6, 5, 8), dtype=bool)
    mask[1:4, 2, 4] = True
    affine = oriented_affine((2.0, 3.0, 5.0), (100.0, -10.0, 7.0), signs=(-1.0, 1.0, 1.0))
    found = mask_statistics(mask, affine, sample=2, seed=3)
    assert found.voxels == 3
    assert found.ml == pytest.approx(0.09)  # 3 x 30 mm3
    assert found.bbox == (1, 2, 4, 4, 3, 5)
    assert found.centroid_mm == pytest.approx((96.0, -4.0, 27.0))
    assert found.components == 1
    assert not found.touches_border
    assert len(found.sampled_voxels) == 2
    assert found.sampled_voxels.dtype == np.int32
    assert all(mask[tuple(voxel)] for voxel in found.sampled_voxels)


def test_touching_a_far_face_counts_as_border() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[2, 2, 3] = True
    assert mask_statistics(mask, np.eye(4), sample=0, seed=0).touches_border


@given(st.integers(0, 2**32 - 1), st.permutations([0, 1, 2]))
def test_bounding_box_is_the_smallest_for_any_memory_order(seed: int, order: list[int]) -> None:
    mask = (np.random.default_rng(seed).random((5, 6, 7)) < 0.02).transpose(order)
    where = np.argwhere(mask)
    expected = None if not len(where) else (*where.min(axis=0).tolist(), *(where.max(axis=0) + 1).tolist())
    assert bounding_box(mask) == expected


@given(st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_sampled_voxels_are_distinct_and_the_same_for_a_seed(seed: int, sample: int) -> None:
    mask = np.random.default_rng(seed).random((4, 5, 3)) < 0.2
    first = mask_statistics(mask, np.eye(4), sample, seed)
    again = mask_statistics(mask, np.eye(4), sample, seed)
    assert np.array_equal(first.sampled_voxels, again.sampled_voxels)
    assert len(first.sampled_voxels) == len(np.unique(first.sampled_voxels, axis=0)) == min(sample, mask.sum())


@pytest.mark.parametrize("shape", list(itertools.product((1, 2, 3, 4), repeat=3)))
def test_parts_of_thin_masks_are_counted(shape: tuple[int, int, int]) -> None:
    """Every other voxel along each axis is a part of its own."""
    mask = np.zeros(shape, dtype=bool)
    mask[::2, ::2, ::2] = True
    assert count_components(mask) == np.count_nonzero(mask)
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5):
        noise = rng.random(shape) < share
        assert count_components(noise) == ndimage.label(noise, np.ones((3, 3, 3)))[1]
