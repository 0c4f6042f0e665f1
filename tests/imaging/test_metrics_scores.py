"""All scores of a class: hand-worked cases, the surface-distance package, MONAI, and what empty masks give."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import Literal
from unittest import mock

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from surface_distance import lookup_tables

from imaging.bits import empty_bits, pack, set_channel
from imaging.metrics import Overlap, distances, overlap_bits, score_bits, score_masks, surface_dice
from imaging.metrics.surface import areas_by_code

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:surface_distance"),
    pytest.mark.filterwarnings("ignore::UserWarning:monai"),
]
Mask = NDArray[np.bool_]
SPACING = (1.0, 2.0, 5.0)


def block(low: tuple[int, int, int], high: tuple[int, int, int], shape: tuple[int, int, int] = (14, 12, 10)) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return mask


def blob(seed: int, shape: tuple[int, int, int], fill: float) -> Mask:
    """Return a lumpy mask with holes and stray voxels: every neighbour code occurs in some of them."""
    rng = np.random.default_rng(seed)
    coarse = rng.random([-(-n // 3) for n in shape]) < fill
    mask = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[: shape[0], : shape[1], : shape[2]]
    return mask ^ (rng.random(shape) < 0.02)


def peer(a: Mask, b: Mask, spacing: tuple[float, float, float], tolerance: float) -> tuple[float, float, float]:
    """Return NSD, HD95 and the mean distance over both surfaces by the surface-distance package."""
    found = surface_distance.compute_surface_distances(a, b, spacing)
    there, back = surface_distance.compute_average_surface_distance(found)
    areas = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    return (
        float(surface_distance.compute_surface_dice_at_tolerance(found, tolerance)),
        float(surface_distance.compute_robust_hausdorff(found, 95)),
        float((there * areas[0] + back * areas[1]) / (areas[0] + areas[1])),
    )


def channel_first(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


def test_two_single_voxels_by_hand() -> None:
    # 8 equal surface elements each, at the voxels' corners; along z the near 4 are 5 mm apart, the far 4 are 10 mm
    a, b = block((5, 5, 3), (6, 6, 4)), block((5, 5, 5), (6, 6, 6))
    assert astuple(score_masks(a, b, SPACING, 5.0)) == pytest.approx((0.0, 0.5, 10.0, 7.5, 0.0, 0.01, 0.01))
    # MONAI measures from the centre of one edge voxel to that of the other
    edges = (channel_first(b), channel_first(a))
    assert float(compute_hausdorff_distance(*edges, percentile=95, spacing=SPACING)) == 10.0
    assert float(compute_average_surface_distance(*edges, symmetric=True, spacing=SPACING)) == 10.0


def test_a_slab_one_voxel_thicker_by_hand() -> None:
    # 6 x 6 voxels in x and y; the prediction has one more slice of 5 mm at the top
    a, b = block((3, 3, 2), (9, 9, 5)), block((3, 3, 2), (9, 9, 6))
    scores = score_masks(a, b, SPACING, 4.9)
    assert scores.dsc == pytest.approx(2 * 108 / (108 + 144))
    assert (scores.truth_ml, scores.predicted_ml) == (pytest.approx(1.08), pytest.approx(1.44))
    assert scores.volume_error_ml == pytest.approx(0.36)
    assert scores.hd95_mm == 5.0
    # the top of the one lies inside the other: its middle is 5 mm from that top, its rim nearer to the side walls
    assert 0 < scores.asd_mm < 5.0


def test_undersegmentation_has_a_negative_volume_error() -> None:
    scores = score_masks(block((0, 0, 0), (4, 4, 4)), block((0, 0, 0), (4, 4, 3)), SPACING, 1.0)
    assert scores.volume_error_ml == pytest.approx(-16 * 10 / 1000)


def test_empty_masks_are_never_counted_as_agreement() -> None:
    empty, full = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    nothing = score_masks(empty, empty, SPACING, 1.0)
    assert [math.isnan(value) for value in astuple(nothing)] == [True] * 4 + [False] * 3
    assert (nothing.truth_ml, nothing.predicted_ml, nothing.volume_error_ml) == (0.0, 0.0, 0.0)
    for scores, error in (
        (score_masks(full, empty, SPACING, 1.0), -0.27),
        (score_masks(empty, full, SPACING, 1.0), 0.27),
    ):
        assert (scores.dsc, scores.nsd) == (0.0, 0.0)
        assert math.isnan(scores.hd95_mm)
        assert math.isnan(scores.asd_mm)
        assert scores.volume_error_ml == pytest.approx(error)


def test_only_the_classes_asked_for_are_scored() -> None:
    a, b = block((0, 0, 0), (4, 4, 4)), block((0, 0, 0), (4, 4, 3))
    bits, other = pack(np.stack([a, a, ~b])), pack(np.stack([b, a, ~a]))
    assert list(score_bits(bits, other, (2, 0), SPACING, 1.0)) == [2, 0]
    scores = score_bits(bits, other, (1, 7), SPACING, 1.0)
    assert (scores[1].dsc, scores[1].nsd, scores[1].hd95_mm, scores[1].asd_mm) == (1.0, 1.0, 0.0, 0.0)
    assert math.isnan(scores[7].dsc)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(0.3, 6.0)] * 3))
def test_every_neighbour_code_has_the_area_of_the_package(spacing: tuple[float, float, float]) -> None:
    expected = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    assert areas_by_code(spacing) == pytest.approx(expected, rel=1e-12)


Order = Literal["C", "F"]
ORDERS: list[tuple[Order, Order]] = [("C", "C"), ("F", "F"), ("C", "F")]
CASES = st.tuples(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.floats(0.3, 6.0)] * 3),
    st.floats(0.0, 9.0),
    st.floats(0.05, 0.8),
)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_equal_to_the_surface_distance_package(case: tuple[int, tuple[float, float, float], float, float]) -> None:
    seed, spacing, tolerance, fill = case
    a, b = blob(seed, (11, 13, 9), fill), blob(seed + 1, (11, 13, 9), fill)
    if a.any() and b.any():
        scores = score_masks(a, b, spacing, tolerance)
        assert (scores.nsd, scores.hd95_mm, scores.asd_mm) == pytest.approx(peer(a, b, spacing, tolerance), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_far_distances_from_the_transform_are_equal_too(
    case: tuple[int, tuple[float, float, float], float, float],
) -> None:
    seed, spacing, tolerance, _ = case
    a, b = blob(seed, (30, 8, 9), 0.4), blob(seed + 1, (30, 8, 9), 0.4)
    a[15:], b[:20] = False, False  # at least 5 voxels apart
    if a.any() and b.any():
        with mock.patch.object(distances, "LOOKS_PER_CORNER", 0):
            scores = score_masks(a, b, spacing, tolerance)
        expected = peer(a, b, spacing, tolerance)
        assert scores.nsd == pytest.approx(expected[0], abs=1e-6)
        assert (scores.hd95_mm, scores.asd_mm) == pytest.approx(expected[1:], rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(CASES)
def test_nsd_equal_to_monai_with_sub_voxels(case: tuple[int, tuple[float, float, float], float, float]) -> None:
    seed, spacing, tolerance, fill = case
    shape = (11, 13, 9)
    steps = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    lengths = np.linalg.norm(steps * spacing, axis=-1)
    # MONAI's are float32: at 5 x 0.30000000000000004 mm, 1.5 mm for it, it decides otherwise
    assume(np.abs(lengths - tolerance).min() > 1e-5)
    a, b = blob(seed, shape, fill), blob(seed + 1, shape, fill)
    if a.any() and b.any():
        monai = compute_surface_dice(
            channel_first(b),
            channel_first(a),
            [tolerance],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
        assert score_masks(a, b, spacing, tolerance).nsd == pytest.approx(float(monai), abs=1e-6)


@settings(max_examples=20, deadline=None)
@example(5398, ("F", "F"))  # an element so far away that its distance is one of float32
@given(st.integers(0, 2**32 - 1), st.sampled_from(ORDERS))
def test_bits_give_what_their_masks_give_in_either_memory_order(seed: int, orders: tuple[Order, Order]) -> None:
    shape = (8, 9, 10)
    masks = [np.stack([blob(seed + shift + channel, shape, 0.3) for channel in range(5)]) for shift in (0, 100)]
    masks[0][3], masks[1][4] = False, False
    volumes = []
    for order, channels in zip(orders, masks, strict=True):
        bits = empty_bits(shape, 40, order)
        for channel, mask in zip((0, 1, 31, 32, 39), channels, strict=True):
            set_channel(bits, channel, mask)
        volumes.append(bits)
    tolerances = {0: 0.5, 1: 1.0, 31: 2.0, 32: 3.0, 39: 1.0}
    scores = score_bits(volumes[0], volumes[1], tuple(tolerances), (0.7, 1.3, 2.9), tolerances)
    for (channel, tolerance), a, b in zip(tolerances.items(), masks[0], masks[1], strict=True):
        expected = score_masks(a, b, (0.7, 1.3, 2.9), tolerance)
        found = scores[channel]
        assert (found.dsc, found.nsd) == pytest.approx((expected.dsc, expected.nsd), abs=1e-9, nan_ok=True)
        assert astuple(found) == pytest.approx(astuple(expected), rel=1e-6, nan_ok=True)  # see `nearest_mm`
        assert surface_dice(a, b, (0.7, 1.3, 2.9), tolerance) == pytest.approx(expected.nsd, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_overlap_of_all_classes_by_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2**32, (2, 2, 3, 4, 5), dtype=np.uint32)
    a[:, :2], b[:, 1:] = 0, 0
    found = overlap_bits(a, b)
    for channel in range(64):
        one, other = (bits[channel // 32] >> np.uint32(channel % 32) & np.uint32(1) for bits in (a, b))
        expected = Overlap(int(one.sum()), int(other.sum()), int((one & other).sum()))
        assert found.get(channel, Overlap(0, 0, 0)) == expected


def test_swapping_truth_and_prediction_changes_only_the_sign_of_the_volume_error() -> None:
    a, b = blob(3, (9, 10, 11), 0.4), blob(4, (9, 10, 11), 0.5)
    there, back = score_masks(a, b, SPACING, 2.0), score_masks(b, a, SPACING, 2.0)
    assert astuple(there)[:4] == pytest.approx(astuple(back)[:4])
    assert there.volume_error_ml == -back.volume_error_ml


def test_wrong_arguments_are_named() -> None:
    bits = empty_bits((4, 4, 4), 3)
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 4\) and uint32 of shape \(1, 4, 4, 5\)"):
        score_bits(bits, empty_bits((4, 4, 5), 3), (0,), SPACING, 1.0)
    with pytest.raises(ValueError, match=r"channels \[32\] outside the 32 channels"):
        score_bits(bits, bits, (0, 32), SPACING, 1.0)
    with pytest.raises(ValueError, match="tolerance_mm nan"):
        score_bits(bits, bits, (0,), SPACING, {0: float("nan")})
    with pytest.raises(ValueError, match="has no tolerance for channel 1"):
        score_bits(bits, bits, (0, 1), SPACING, {0: 1.0})
    with pytest.raises(ValueError, match=r"spacing_mm \(1.0, 0.0, 1.0\)"):
        score_bits(bits, bits, (0,), (1.0, 0.0, 1.0), 1.0)
