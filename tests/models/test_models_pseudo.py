"""What only a model labelled: its weight in the loss, its share of the patches, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from models_source import AORTA, LIVER, SPLEEN, BoxSource

from models.loss import masked_loss
from models.plan import SamplingPlan, TrainCase
from models.sampling import PatchSampler
from models.settings import ModelSettings, TrainSettings

MODEL = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))
SHAPE = (20, 18, 16)
VOXELS = np.array([[9, 9, 9]])


class MixedBoxes(BoxSource):
    """As `BoxSource`; of the odd cases a model labelled the spleen, and people the aorta."""

    def cases(self) -> list[TrainCase]:
        return [replace(case, pseudo=(SPLEEN,)) if SPLEEN in case.annotated else case for case in super().cases()]


def test_a_pair_of_weight_one_half_has_half_the_gradient_and_leaves_the_others_theirs() -> None:
    torch.manual_seed(0)
    values, target = torch.randn(2, 3, 3, 4, 5), torch.rand(2, 3, 3, 4, 5) > 0.5
    annotated = torch.tensor([[True, True, False], [True, True, True]])
    weights = torch.tensor([[1.0, 0.5, 1.0], [1.0, 0.0, 1.0]])

    def gradient(pair_weights: torch.Tensor | None) -> torch.Tensor:
        logits = values.clone().requires_grad_()
        masked_loss(logits, target, annotated, pair_weights=pair_weights, balance=0.3)[0].backward()
        assert logits.grad is not None
        return logits.grad

    plain, weighted = gradient(None), gradient(weights)
    torch.testing.assert_close(weighted, plain * weights[:, :, None, None, None])
    assert (weighted[1, 1] == 0).all()  # of weight 0
    assert (weighted[0, 2] == 0).all()  # nobody looked
    assert torch.equal(gradient(torch.ones(2, 3)), plain)


def test_a_batch_of_pseudo_labels_alone_counts_less_than_one_of_human_labels() -> None:
    logits, target = torch.randn(1, 2, 3, 3, 3), torch.rand(1, 2, 3, 3, 3) > 0.5
    annotated = torch.ones(1, 2, dtype=torch.bool)
    human, _ = masked_loss(logits, target, annotated)
    pseudo, _ = masked_loss(logits, target, annotated, pair_weights=torch.full((1, 2), 0.25))
    assert pseudo.item() == pytest.approx(human.item() / 4)


def test_a_batch_carries_the_weight_of_each_case_and_class() -> None:
    sampler = PatchSampler(MixedBoxes(), MODEL, TrainSettings(batch=2, pseudo_weight=0.25))
    seen = set()
    for step in range(20):
        batch = sampler.batch(step)
        for row, case_id in enumerate(batch.case_ids):
            for place, name in enumerate(batch.classes):
                by_model = name == "spleen" and int(case_id[-1]) % 2 == 1
                assert float(batch.weights[row, place]) == (0.25 if by_model else 1.0)
                seen.add(by_model)
    assert seen == {True, False}


def test_pseudo_labels_have_their_own_share_of_the_patches() -> None:
    cases = [
        TrainCase("h/1", (LIVER,), SHAPE, {LIVER: VOXELS}, "h"),
        TrainCase("h/2", (LIVER, SPLEEN), SHAPE, {LIVER: VOXELS, SPLEEN: VOXELS}, "h", pseudo=(SPLEEN,)),
        *(TrainCase(f"p/{n}", (LIVER,), SHAPE, {LIVER: VOXELS}, "p", pseudo=(LIVER,)) for n in range(8)),
    ]
    train = TrainSettings(foreground=0.5, pseudo_share=0.2)
    shares = SamplingPlan(cases, MODEL, train).shares()
    assert shares.pseudo == 0.2
    # human: a liver of two cases, or anywhere in them; pseudo: liver (8 cases) and spleen (1) alike, or anywhere in 9
    assert shares.classes == pytest.approx({"anywhere": 0.5, "liver": 0.4 + 0.05, "spleen": 0.05})
    assert shares.cases["h/1"] == pytest.approx(0.4)
    assert shares.cases["h/2"] == pytest.approx(0.4 + 0.05 + 0.1 / 9)
    assert shares.datasets["p"] == pytest.approx(0.05 + 0.1 * 8 / 9)
    plan, random = SamplingPlan(cases, MODEL, train), np.random.default_rng(1)
    drawn = Counter(plan.draw(random).case.dataset for _ in range(4000))
    assert drawn["p"] / 4000 == pytest.approx(shares.datasets["p"], abs=0.02)


def test_without_pseudo_labels_the_same_patches_are_drawn_whatever_their_share() -> None:
    cases = [TrainCase(f"h/{n}", (LIVER, AORTA), SHAPE, {LIVER: VOXELS}, "h") for n in range(3)]

    def picks(share: float) -> list[tuple[str, int | None, tuple[int, int, int]]]:
        plan, random = SamplingPlan(cases, MODEL, TrainSettings(pseudo_share=share)), np.random.default_rng(2)
        return [(pick.case.case_id, pick.channel, pick.start) for pick in (plan.draw(random) for _ in range(50))]

    assert picks(0.0) == picks(0.9)


def test_pseudo_labels_alone_take_every_patch_and_a_share_of_0_takes_none() -> None:
    pseudo = [TrainCase("p/1", (LIVER,), SHAPE, {LIVER: VOXELS}, "p", pseudo=(LIVER,))]
    human = [TrainCase("h/1", (LIVER,), SHAPE, {LIVER: VOXELS}, "h")]
    assert SamplingPlan(pseudo, MODEL, TrainSettings()).shares().pseudo == 1.0
    none = SamplingPlan([*human, *pseudo], MODEL, TrainSettings(pseudo_share=0.0)).shares()
    assert none.datasets == {"h": 1.0}


def test_a_pseudo_class_that_is_not_annotated_and_a_weight_above_1_are_refused() -> None:
    with pytest.raises(ValueError, match=r"p/1: pseudo-labelled channels \[0\] are not among"):
        TrainCase("p/1", (LIVER,), SHAPE, {}, "p", pseudo=(SPLEEN,))
    with pytest.raises(ValueError, match=r"pseudo_weight: 1\.5, expected a share between 0 and 1"):
        TrainSettings(pseudo_weight=1.5)
