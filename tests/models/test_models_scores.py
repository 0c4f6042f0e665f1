"""Doubt at surfaces and agreement of opinions, on masks small enough to count by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from window_network import WindowNetwork

from models.infer import Predictor
from models.infer_scan import ArrayScan
from models.scores import MOST_VARIANTS, Agreement, SurfaceEntropy, binary_entropy, unshifted, variant
from models.settings import ModelSettings


def words_of(logits, channels):
    """Class bits (W, X, Y, Z) int32 where the logits (C, X, Y, Z) are above 0."""
    made = np.zeros((2, *logits.shape[1:]), dtype=np.uint32)
    for own, channel in zip(logits, channels, strict=True):
        made[channel // 32] |= (own > 0).astype(np.uint32) << np.uint32(channel % 32)
    return torch.from_numpy(made.view(np.int32))


def entropy_of(logits, channels, axis, cuts):
    """The means by slabs that end at `cuts` along `axis`."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    words = words_of(logits.numpy(), channels)
    doubt = SurfaceEntropy(channels, axis)
    edges = [0, *cuts, logits.shape[1 + axis]]
    for first, last in itertools.pairwise(edges):
        slab = logits.narrow(1 + axis, first, last - first).clone()
        doubt.add(slab, words.narrow(1 + axis, first, last - first))
        slab.zero_()  # a slab is valid until the next one only
    return doubt.means()


def plain_entropy(own):
    """Mean entropy over the voxels of own > 0 that have a 6-neighbour inside the scan where it is not."""
    inside = own > 0
    surface = np.zeros_like(inside)
    for axis in range(3):
        for step in (1, -1):
            beside = np.roll(inside, step, axis)
            np.moveaxis(beside, axis, 0)[0 if step == 1 else -1] = True  # beyond the scan
            surface |= inside & ~beside
    p = 1 / (1 + np.exp(-own[surface].astype(np.float64)))
    doubts = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return doubts.mean() if len(doubts) else math.nan


def test_entropy_is_one_bit_at_even_odds_and_falls_towards_both_sides():
    found = binary_entropy(torch.tensor([0.0, math.log(3), -math.log(3), 80.0, -80.0]))
    assert found.tolist() == pytest.approx([1.0, 0.811278, 0.811278, 0.0, 0.0], abs=1e-6)


def test_only_the_surface_counts_and_not_where_the_scan_ends():
    # A block of 3 x 3 x 4 that leaves the scan at z = 0: its inner column of 3 voxels is sure, and its shell in doubt.
    logits = np.full((1, 5, 5, 6), -5.0)
    logits[0, 1:4, 1:4, 0:4] = math.log(3)
    logits[0, 2, 2, 0:3] = 20.0
    assert entropy_of(logits, [0], 2, [])[0] == pytest.approx(0.811278, abs=1e-6)
    # at the far end of the column the surface is sure: 32 voxels in doubt and 1 not
    logits[0, 2, 2, 3] = 80.0
    assert entropy_of(logits, [0], 2, [])[0] == pytest.approx(0.811278 * 32 / 33, abs=1e-6)


def test_a_mask_without_surface_and_an_empty_one_have_no_entropy():
    logits = np.stack([np.full((3, 4, 5), 2.0), np.full((3, 4, 5), -2.0)])
    assert np.isnan(entropy_of(logits, [0, 40], 0, [1])).all()


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    axis=st.integers(0, 2),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_where_slabs_end_changes_nothing(shape, axis, seed, data):
    logits = np.random.default_rng(seed).normal(0.7, 1.5, (3, *shape)).astype(np.float32)
    length = shape[axis]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, length - 1)), max_size=length - 1))) if length > 1 else []
    found = entropy_of(logits, [3, 31, 33], axis, cuts)
    assert found == pytest.approx([plain_entropy(own) for own in logits], abs=1e-5, nan_ok=True)


def test_agreement_is_the_mean_dsc_of_all_pairs_weighted_as_blending_does():
    one, two, three = (torch.zeros((1, 2, 1, 1, 3), dtype=torch.bool) for _ in range(3))
    one[0, 0, 0, 0, :2] = True  # middle and left
    two[0, 0, 0, 0, 1:] = True  # middle and right
    agreement = Agreement(3, 2, (1, 1, 3))
    agreement.add([one, two, three])
    # weights: 1 in the middle, exp(-0.5 * (1 / 0.375)^2) = 0.028566 beside it
    side = math.exp(-0.5 * (1 / 0.375) ** 2)
    both = 2 * 1 / (2 * (1 + side))
    assert agreement.means() == [pytest.approx((both + 0 + 0) / 3, abs=1e-6), None]


def test_variants_come_back_to_where_the_scan_is_and_are_the_same_each_time():
    windows = torch.zeros(2, 1, 12, 13, 14)
    windows[:, :, 6, 6, 7] = 1.0
    for number in range(1, MOST_VARIANTS + 1):
        seen = variant(windows, number, 425.0)
        assert not torch.equal(seen, windows)
        assert torch.equal(seen, variant(windows, number, 425.0))
        assert torch.equal(unshifted(seen > 0.6, number), windows > 0.6)
        assert 0 <= float(seen.min()) <= float(seen.max()) <= 1


CHOSEN = ModelSettings(classes=("liver", "aorta", "spleen"), patch=(8, 8, 8))


def scan(shape=(11, 9, 21)):
    return ArrayScan(np.random.default_rng(3).integers(-200, 300, shape).astype(np.int16))


def test_one_model_alone_has_no_agreement_and_equal_ones_agree_fully():
    alone = Predictor([WindowNetwork(CHOSEN.classes)], CHOSEN).predict(scan())
    assert alone.scores.agreement == dict.fromkeys(CHOSEN.classes)
    twice = Predictor([WindowNetwork(CHOSEN.classes)] * 2, CHOSEN).predict(scan())
    assert list(twice.scores.agreement.values()) == pytest.approx([1.0] * 3)
    apart = Predictor([WindowNetwork(CHOSEN.classes), WindowNetwork(CHOSEN.classes, 0.4)], CHOSEN).predict(scan())
    assert all(0.3 < value < 0.98 for value in apart.scores.agreement.values() if value is not None)


def test_variants_judge_and_do_not_change_the_masks():
    plain = Predictor([WindowNetwork(CHOSEN.classes)], CHOSEN).predict(scan())
    network = WindowNetwork(CHOSEN.classes)
    judged = Predictor([network], CHOSEN, variants=2, batch=3).predict(scan())
    assert np.array_equal(plain.bits, judged.bits)
    assert plain.scores.boundary_entropy == judged.scores.boundary_entropy
    assert all(0 < value < 1 for value in judged.scores.agreement.values() if value is not None)
    other_batch = Predictor([WindowNetwork(CHOSEN.classes)], CHOSEN, variants=2, batch=1).predict(scan())
    assert list(other_batch.scores.agreement.values()) == pytest.approx(list(judged.scores.agreement.values()))


def test_running_out_of_memory_counts_no_window_twice():
    fits = Predictor([WindowNetwork(CHOSEN.classes)] * 2, CHOSEN, batch=1).predict(scan())
    tight = Predictor([WindowNetwork(CHOSEN.classes, memory={"cpu": 2})] * 2, CHOSEN, batch=4)
    found = tight.predict(scan(), say=lambda _: None)
    assert found.scores.agreement == pytest.approx(fits.scores.agreement)
    assert np.array_equal(found.bits, fits.bits)


@pytest.mark.parametrize("count", [-1, MOST_VARIANTS + 1])
def test_a_count_of_variants_that_there_is_not_is_refused(count):
    with pytest.raises(ValueError, match=f"variants {count}: expected 0 to {MOST_VARIANTS}"):
        Predictor([WindowNetwork(CHOSEN.classes)], CHOSEN, variants=count)
