"""What augmentation does to a patch, by hand: places, sides and intensities; the same for every number of readers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models_source import BoxSource
from torch import Tensor

from models.augment import Change, apply_changes, draw_change
from models.loader import open_batches
from models.sampling import Batch, PatchSampler
from models.settings import ModelSettings, TrainSettings, load_preset

MODEL = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))
ALL = TrainSettings(
    batch=2, seed=3, shift_share=1.0, rotate_share=1.0, zoom_share=1.0, zoom_range=(1.2, 1.9), zoom_datasets=("box",)
)


def changed(change: Change, *shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return an image of one voxel value each, and image, bits (the value as a word) and valid after `change`."""
    image = torch.arange(float(np.prod(shape))).reshape(1, 1, *shape)
    after = apply_changes(image, image.to(torch.int32), image > 0, [change])
    return image, *after


def test_a_quarter_turn_takes_x_to_y_and_leaves_z() -> None:
    image, turned, bits, valid = changed(Change(turns=1), 3, 3, 2)
    # patient to the right is +x; after a quarter turn from x towards y it lies at +y, and +y lies at -x
    for x in range(3):
        for y in range(3):
            assert torch.equal(turned[0, 0, 2 - y, x], image[0, 0, x, y]), (x, y)
    assert torch.equal(bits.float(), turned)
    assert torch.equal(valid, turned > 0)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_no_turn_mirrors(turns: int) -> None:
    # a right-handed corner: voxels of 1, 2, 3 one step along X, Y, Z from the 4 in the middle
    image = torch.zeros(1, 1, 3, 3, 3)
    for value, at in ((1, (2, 1, 1)), (2, (1, 2, 1)), (3, (1, 1, 2)), (4, (1, 1, 1))):
        image[(0, 0, *at)] = value
    turned, _, _ = apply_changes(image, image.to(torch.int32), image > 0, [Change(turns=turns)])
    origin, *arms = (np.argwhere(turned[0, 0].numpy() == value)[0] for value in (4, 1, 2, 3))
    assert np.linalg.det(np.stack([arm - origin for arm in arms])) == pytest.approx(1)


def test_zoom_is_linear_for_the_image_and_nearest_for_the_classes() -> None:
    # a magnification of 2 about the centre 1.5 of four voxels shows the places 0.75, 1.25, 1.75, 2.25
    image = torch.tensor([0.0, 10.0, 30.0, 70.0]).reshape(1, 1, 4, 1, 1)
    words = torch.tensor([1, 2, -3, 4], dtype=torch.int32).reshape(1, 1, 4, 1, 1)
    inside = torch.tensor([False, True, True, True]).reshape(1, 1, 4, 1, 1)
    zoomed, bits, valid = apply_changes(image, words, inside, [Change(zoom=2.0)])
    assert zoomed.flatten().tolist() == [7.5, 15.0, 25.0, 40.0]
    assert bits.flatten().tolist() == [2, 2, -3, -3]
    assert valid.flatten().tolist() == [True, True, True, True]
    _, _, valid = apply_changes(image, words, inside, [Change(zoom=1.2)])  # places 0.25, 1.08, 1.92, 2.75
    assert valid.flatten().tolist() == [False, True, True, True]


def test_zoom_keeps_what_is_linear_on_a_patch_of_unequal_sides() -> None:
    x, y, z = np.meshgrid(np.arange(6) - 2.5, np.arange(5) - 2.0, np.arange(4) - 1.5, indexing="ij")
    plane = torch.from_numpy((2 * x - 3 * y + 5 * z).astype(np.float32))[None, None]
    zoomed, _, _ = apply_changes(plane, plane.int(), plane > 0, [Change(zoom=1.6)])
    assert torch.allclose(zoomed, plane / 1.6, atol=1e-5)


def test_shift_touches_the_image_only_and_only_its_own_patch() -> None:
    image = torch.full((2, 1, 2, 2, 2), 0.5)
    given_bits, given_valid = torch.ones(2, 1, 2, 2, 2, dtype=torch.int32), torch.ones(2, 1, 2, 2, 2, dtype=torch.bool)
    after, bits, valid = apply_changes(image, given_bits, given_valid, [Change(), Change(gain=1.1, shift=-0.05)])
    assert torch.allclose(after[:, 0, 0, 0, 0], torch.tensor([0.5, 0.5]))
    assert torch.equal(after[1], image[1] * 1.1 + -0.05)
    assert torch.equal(bits, given_bits)
    assert torch.equal(valid, given_valid)
    assert torch.equal(image, torch.full_like(image, 0.5))  # what was given stays


@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_what_is_drawn_lies_within_the_settings(seed: int, share: float) -> None:
    train = TrainSettings(
        shift=0.1, stretch=0.0, shift_share=share, rotate_share=share, zoom_share=share, zoom_datasets=("msd_liver",)
    )
    change = draw_change(np.random.default_rng(seed), train, "msd_liver")
    assert -0.1 <= change.shift <= 0.1
    assert change.gain == 1.0
    assert change.turns in range(4)
    assert change.zoom == 1.0 or 1.3 <= change.zoom <= 1.5
    if share == 0:
        assert change == Change()
    if share == 1:
        assert change.turns
        assert change.zoom > 1
    assert draw_change(np.random.default_rng(seed), train, "lits").zoom == 1.0


def test_the_published_shares_come_out() -> None:
    train = load_preset("paper").train
    random = np.random.default_rng(0)
    drawn = [draw_change(random, train, "msd_liver") for _ in range(20_000)]
    # five standard deviations each
    assert sum(1 for change in drawn if change.turns) / len(drawn) == pytest.approx(0.1, abs=0.011)
    assert sum(1 for change in drawn if change.zoom > 1) / len(drawn) == pytest.approx(0.3, abs=0.017)
    assert sum(1 for change in drawn if change.shift) / len(drawn) == pytest.approx(0.2, abs=0.015)


def batches(numbers: range, readers: int) -> list[Batch]:
    with open_batches(PatchSampler(BoxSource(), MODEL, ALL), numbers, readers, 0) as found:
        return [packed.unpack() for packed in found]


def test_readers_and_a_restart_change_nothing_of_it() -> None:
    alone = batches(range(6), 0)
    plain = PatchSampler(BoxSource(), MODEL, TrainSettings(batch=2, seed=3, shift_share=0.0))
    assert not torch.equal(alone[0].target, plain.batch(0).target)  # something was changed at all
    for ours, theirs in zip([*batches(range(2), 2), *batches(range(2, 6), 1)], alone, strict=True):
        for name in ("image", "target", "annotated", "valid"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_classes_stay_on_their_voxels() -> None:
    train = TrainSettings(batch=4, seed=1, shift_share=0.0, rotate_share=1.0, foreground=1.0)
    sampler = PatchSampler(BoxSource(), MODEL, train)
    seen = 0
    for step in range(5):
        batch = sampler.batch(step)
        for name, hu in (("liver", 100), ("spleen", 200)):
            if name in batch.classes:
                place = batch.classes.index(name)
                mask = batch.target[:, place] & batch.annotated[:, place, None, None, None]
                assert torch.allclose(batch.image[:, 0][mask], torch.tensor((hu + 175) / 425), atol=1e-6)
                seen += int(mask.sum())
    assert seen


def test_turns_need_patches_that_stay_the_same() -> None:
    flat = ModelSettings(classes=("liver",), patch=(16, 24, 16))
    with pytest.raises(ValueError, match=r"train.rotate_share: 0.1 with patches of \(16, 24, 16\)"):
        PatchSampler(BoxSource(), flat, TrainSettings(rotate_share=0.1))


def test_a_misspelt_data_set_is_told_and_one_that_is_not_in_this_lake_is_fine() -> None:
    with pytest.raises(ValueError, match=r"train.zoom_datasets: msd_livr .*msd_liver"):
        PatchSampler(BoxSource(), MODEL, TrainSettings(zoom_share=0.3, zoom_datasets=("msd_livr",)))
    PatchSampler(BoxSource(), MODEL, TrainSettings(zoom_share=0.3, zoom_datasets=("msd_liver", "box")))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"zoom_range": (0.9, 1.5)}, "train.zoom_range"),
        ({"zoom_range": (1.5, 1.3)}, "train.zoom_range"),
        ({"zoom_range": (1.3, float("nan"))}, "train.zoom_range"),
        ({"zoom_share": 0.3}, "without zoom_datasets"),
        ({"rotate_share": 1.5}, "train.rotate_share"),
        ({"stretch": -0.1}, "train.stretch"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TrainSettings(**values)  # type: ignore[arg-type]
