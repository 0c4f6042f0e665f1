"""Which patches are drawn, and what they hold."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from models_source import LIVER, SPLEEN, BoxSource

from imaging.bits import pack
from models.plan import TrainCase
from models.sampling import PatchReader, PatchSampler, unpack_masks, window_hu
from models.settings import ModelSettings, TrainSettings

MODEL = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))


def test_window_maps_its_ends_to_0_and_1():
    values = window_hu(np.array([-1024, -175, 37.5, 250, 3000]), (-175.0, 250.0))
    assert values.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_step_gives_the_same_batch_whatever_came_before():
    first, second = (PatchSampler(BoxSource(), MODEL, TrainSettings(batch=2, seed=3)) for _ in range(2))
    for step in (0, 1, 2):
        first.batch(step)
    ours, theirs = first.batch(7), second.batch(7)
    assert ours.case_ids == theirs.case_ids
    assert torch.equal(ours.image, theirs.image)
    assert torch.equal(ours.target, theirs.target)
    others = [second.batch(7, rank=1), second.batch(8)]
    assert any(not torch.equal(ours.image, other.image) for other in others)


def test_batch_holds_what_its_cases_annotate():
    sampler = PatchSampler(BoxSource(), MODEL, TrainSettings(batch=2))
    for step in range(20):
        batch = sampler.batch(step)
        names = batch.classes
        for row, case_id in enumerate(batch.case_ids):
            expected = {"liver"} if int(case_id[-1]) % 2 == 0 else {"spleen", "aorta"}
            assert {name for name, is_on in zip(names, batch.annotated[row], strict=True) if is_on} == expected
        assert batch.image.shape == (2, 1, 16, 16, 16)
        assert batch.target.shape == (2, len(names), 16, 16, 16)


def test_target_bits_lie_on_the_image_voxels():
    sampler = PatchSampler(BoxSource(), MODEL, TrainSettings(batch=1, shift_share=0.0, foreground=1.0))
    batch = sampler.batch(0)
    for name, mask in zip(batch.classes, batch.target[0], strict=True):
        hu = {"liver": 100, "spleen": 200}.get(name)
        if hu is not None:
            assert mask.any()
            assert torch.allclose(batch.image[0, 0][mask], torch.tensor((hu + 175) / 425), atol=1e-6)


@pytest.mark.parametrize("classes", [32, 130])
def test_masks_on_the_device_are_those_that_were_packed(classes: int) -> None:
    masks = np.random.default_rng(classes).random((2, classes, 3, 4, 5)) < 0.4
    bits = torch.from_numpy(np.stack([pack(of_case) for of_case in masks]).view(np.int32))
    channels = [31, 0, classes - 1]
    assert np.array_equal(unpack_masks(bits, channels).numpy(), masks[:, channels])


class OnePerClass:
    """20 cases of the liver, one of the spleen."""

    def __init__(self):
        self.rows = [
            TrainCase(
                f"c/{n}", (LIVER,) if n else (SPLEEN,), (30, 30, 30), {LIVER if n else SPLEEN: np.array([[9, 9, 9]])}
            )
            for n in range(21)
        ]
        self.asked = []

    def cases(self):
        return self.rows

    def read(self, case_id, start_xyz, size_xyz):
        self.asked.append((case_id, start_xyz))
        return np.zeros(size_xyz, np.int16), np.zeros((1, *size_xyz), np.uint32), (slice(0, 16),) * 3


def test_rare_classes_are_drawn_as_often_as_common_ones():
    source = OnePerClass()
    sampler = PatchSampler(source, MODEL, TrainSettings(batch=1, foreground=1.0))
    for step in range(300):
        sampler.batch(step)
    seen = Counter(case_id for case_id, _ in source.asked)
    assert 115 <= seen["c/0"] <= 185  # half of 300, five standard deviations
    for _, start in source.asked:
        assert all(0 <= s <= 9 < s + 16 <= 30 for s in start)  # inside the scan, the voxel inside the patch


def test_a_small_scan_lies_in_the_middle_and_padding_is_marked():
    model = ModelSettings(classes=("liver",), patch=(32, 16, 16))
    batch = PatchSampler(BoxSource(2), model, TrainSettings(batch=1, shift_share=0.0)).batch(0)
    inside = batch.valid[0, 0].any(dim=2).any(dim=1)
    assert inside.nonzero().flatten().tolist() == list(range(6, 26))  # 20 voxels in 32
    assert (batch.image[0, 0, :6] == 0).all()


def test_no_annotated_class_is_an_error_that_counts_the_cases():
    with pytest.raises(ValueError, match="4 cases"):
        PatchSampler(BoxSource(), ModelSettings(classes=("bladder",), patch=(16, 16, 16)), TrainSettings())


def test_absent_classes_take_part_without_foreground():
    sampler = PatchSampler(BoxSource(), MODEL, TrainSettings(batch=1))
    steps = [sampler.batch(step) for step in range(20)]
    assert any(
        "aorta" in batch.classes and not batch.target.numpy()[0, batch.classes.index("aorta")].any() for batch in steps
    )


@pytest.mark.parametrize("stored", [1, 2, 3])
def test_only_the_words_of_the_models_classes_are_kept(stored: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSettings, "channels", (3, 40))  # as if more than 32 classes were known
    words = np.arange(1, 1 + stored * 24, dtype=np.uint32).reshape(stored, 2, 3, 4)

    class Source:
        def read(self, *asked):
            return np.full(asked[2], 7, np.int16), words, (slice(0, 2), slice(0, 3), slice(0, 4))

    model = ModelSettings(classes=("liver", "spleen"), patch=(8, 8, 8))
    object.__setattr__(model, "patch", (2, 3, 4))
    reader = PatchReader(Source(), model, TrainSettings(batch=1))
    memory = bytearray(b"\xff" * reader.nbytes)
    voxels = reader.voxels(memoryview(memory))
    reader.read([("a/1", (0, 0, 0))], voxels)
    assert reader.nbytes == 24 * (2 + 2 * 4)
    assert (voxels.hu == 7).all()
    assert voxels.bits.shape == (1, 2, 4, 3, 2)  # W, Z, Y, X
    kept = min(stored, 2)
    assert np.array_equal(voxels.bits[0, :kept], words[:kept].transpose(0, 3, 2, 1))
    assert not voxels.bits[0, kept:].any()  # a lake of an earlier taxonomy holds none of the later classes
