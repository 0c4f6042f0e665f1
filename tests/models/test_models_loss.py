"""The partial-label loss against hand-worked numbers and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.loss import SMOOTH, masked_loss
from models.settings import ModelSettings
from models.universal import build_model


def plain_loss(logits, target, annotated, valid, weights):
    """The definition, one voxel after another, in float64."""
    each = []
    for b in range(logits.shape[0]):
        for c in range(logits.shape[1]):
            if not annotated[b, c]:
                continue
            bce = overlap = probs = truths = voxels = 0.0
            for index in np.ndindex(*logits.shape[2:]):
                if not valid[(b, 0, *index)]:
                    continue
                z, t = float(logits[(b, c, *index)]), float(target[(b, c, *index)])
                p = 1 / (1 + math.exp(-z))
                bce -= t * math.log(p) + (1 - t) * math.log(1 - p)
                overlap, probs, truths, voxels = overlap + p * t, probs + p, truths + t, voxels + 1
            own = bce / voxels + 1 - (2 * overlap + SMOOTH) / (probs + truths + SMOOTH)
            each.append((weights[c], weights[c] * own))
    return sum(loss for _, loss in each) / sum(weight for weight, _ in each)


def random_case(seed, shape=(2, 3, 2, 3, 2)):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=draw)
    target = torch.rand(shape, generator=draw) > 0.6
    annotated = torch.rand(shape[:2], generator=draw) > 0.4
    annotated[0, 0] = True
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) > 0.3
    valid[:, :, 0, 0, 0] = True
    return logits, target, annotated, valid


def test_two_voxels_worked_by_hand():
    # probabilities 3/4 and 1/4; the first voxel is the class: BCE = -ln(3/4), Dice = (2 * 3/4 + 1) / (1 + 1 + 1) = 5/6
    logits = torch.tensor([math.log(3), -math.log(3)]).reshape(1, 1, 2, 1, 1)
    target = torch.tensor([True, False]).reshape(1, 1, 2, 1, 1)
    loss, parts = masked_loss(logits, target, torch.ones(1, 1, dtype=torch.bool))
    assert float(parts.bce) == pytest.approx(-math.log(0.75), abs=1e-6)
    assert float(parts.dice) == pytest.approx(1 / 6, abs=1e-6)
    assert float(loss) == pytest.approx(-math.log(0.75) + 1 / 6, abs=1e-6)


def test_balance_lets_one_voxel_of_a_class_weigh_as_much_as_all_others():
    # four voxels of probability 1/2, one of them the class: every voxel's cross-entropy is ln 2
    logits, target = torch.zeros(1, 1, 4, 1, 1), torch.tensor([True, False, False, False]).reshape(1, 1, 4, 1, 1)
    annotated = torch.ones(1, 1, dtype=torch.bool)
    for balance, positive_weight in ((0.0, 1.0), (0.5, 2.0), (1.0, 3.0)):
        free = logits.clone().requires_grad_()
        loss, parts = masked_loss(free, target, annotated, dice_weight=0.0, balance=balance)
        loss.backward()
        assert float(parts.bce) == pytest.approx((positive_weight + 3) * math.log(2) / 4, abs=1e-6)
        # d BCE / d logit = weight * (probability - truth) / voxels
        expected = [-positive_weight * 0.5 / 4, 0.5 / 4, 0.5 / 4, 0.5 / 4]
        assert free.grad.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_balance_changes_nothing_for_an_absent_class():
    logits, annotated = torch.randn(1, 1, 3, 2, 2), torch.ones(1, 1, dtype=torch.bool)
    target = torch.zeros_like(logits, dtype=torch.bool)
    plain, _ = masked_loss(logits, target, annotated)
    balanced, _ = masked_loss(logits, target, annotated, balance=1.0)
    assert float(plain) == float(balanced)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.floats(0.1, 4), min_size=3, max_size=3))
def test_equals_the_plain_loop(seed, weights):
    logits, target, annotated, valid = random_case(seed)
    loss, _ = masked_loss(logits, target, annotated, valid)
    assert float(loss) == pytest.approx(plain_loss(logits, target, annotated, valid, (1, 1, 1)), abs=1e-5)
    loss, _ = masked_loss(logits, target, annotated, valid, class_weights=torch.tensor(weights))
    assert float(loss) == pytest.approx(plain_loss(logits, target, annotated, valid, weights), abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradient_equals_that_of_the_definition_in_plain_torch(seed):
    logits, target, annotated, valid = random_case(seed)
    ours = logits.double().requires_grad_()
    masked_loss(ours, target, annotated, valid)[0].backward()
    other = logits.double().requires_grad_()
    inside, truth = valid.double(), target.double()
    prob = other.sigmoid()
    bce = torch.nn.functional.binary_cross_entropy(prob, truth, reduction="none") * inside
    bce = bce.sum((2, 3, 4)) / inside.sum((2, 3, 4))
    top = 2 * (prob * truth * inside).sum((2, 3, 4)) + SMOOTH
    dice = 1 - top / ((prob * inside).sum((2, 3, 4)) + (truth * inside).sum((2, 3, 4)) + SMOOTH)
    (bce + dice)[annotated].mean().backward()
    assert torch.allclose(ours.grad, other.grad, atol=1e-6)


def test_unannotated_pairs_and_padding_get_exactly_zero_gradient():
    logits, target, annotated, valid = random_case(7)
    logits[~annotated] = float("inf")  # whatever stands there
    logits.requires_grad_()
    masked_loss(logits, target, annotated, valid)[0].backward()
    assert (logits.grad[~annotated] == 0).all()
    assert (logits.grad[:, :, ~valid[0, 0]][0] == 0).all()
    assert (logits.grad[0][annotated[0]][:, valid[0, 0]] != 0).all()


def test_annotated_and_absent_is_a_negative():
    logits = torch.zeros(1, 1, 3, 3, 3, requires_grad=True)
    loss, _ = masked_loss(logits, torch.zeros(1, 1, 3, 3, 3), torch.ones(1, 1, dtype=torch.bool))
    loss.backward()
    assert (logits.grad > 0).all()  # descending lowers every logit
    certain = torch.full((1, 1, 3, 3, 3), -50.0)
    assert float(masked_loss(certain, torch.zeros_like(certain), torch.ones(1, 1, dtype=torch.bool))[0]) < 1e-6


def test_nothing_annotated_is_a_zero_loss_with_a_zero_gradient():
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    loss, parts = masked_loss(logits, torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert len(parts.pairs) == 0
    assert (logits.grad == 0).all()


def test_class_weights_shift_the_mean():
    logits, target, _, _ = random_case(3)
    every = torch.ones(2, 3, dtype=torch.bool)
    _, parts = masked_loss(logits, target, every)
    weighted, _ = masked_loss(logits, target, every, class_weights=torch.tensor([1.0, 0.0, 3.0]))
    table = parts.pair_loss.reshape(2, 3)
    assert float(weighted) == pytest.approx(float((table[:, 0] + 3 * table[:, 2]).sum() / 8), rel=1e-5)


def test_classes_that_all_weigh_nothing_are_a_zero_loss():
    logits, target, _, _ = random_case(3)
    logits.requires_grad_()
    loss, parts = masked_loss(logits, target, torch.ones(2, 3, dtype=torch.bool), class_weights=torch.zeros(3))
    loss.backward()
    assert (loss.item(), parts.bce.item(), parts.dice.item()) == (0, 0, 0)
    assert (logits.grad == 0).all()


def patch_model():
    """A whole model of three classes, and a batch of two patches."""
    torch.manual_seed(1)
    model = build_model(ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16)))
    return model, torch.rand(2, 1, 16, 16, 16), torch.rand(2, 3, 16, 16, 16) > 0.7


def gradients(model, image, target, annotated, valid=None, wanted=None):
    model.zero_grad()
    masked_loss(model(image, None, wanted), target, annotated, valid)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_what_nobody_annotated_changes_no_gradient_of_any_parameter():
    model, image, target = patch_model()
    annotated = torch.tensor([[True, False, True], [False, False, True]])
    plain = gradients(model, image, target, annotated)
    scrambled = torch.where(annotated[:, :, None, None, None], target, ~target)
    other = gradients(model, image, scrambled, annotated)
    assert all(torch.equal(other[name], value) for name, value in plain.items())
    # training does not even compute the logits of such pairs
    skipped = gradients(model, image, target, annotated, wanted=annotated)
    assert all(torch.allclose(skipped[name], value, rtol=1e-4, atol=1e-6) for name, value in plain.items())
    none = gradients(model, image, target, torch.zeros(2, 3, dtype=torch.bool))
    assert all((value == 0).all() for value in none.values())


def test_a_class_nobody_annotated_gets_no_gradient_on_its_own_parameters():
    model, image, target = patch_model()
    rows = torch.nn.Parameter(model.organ_embedding.clone())
    del model.organ_embedding
    model.organ_embedding = rows  # as if the embeddings, the only parameters of one class, were learnt
    annotated = torch.tensor([[True, False, True], [False, False, False]])
    for wanted in (None, annotated):
        found = gradients(model, image, target, annotated, wanted=wanted)["organ_embedding"]
        assert (found[1] == 0).all()
        assert (found[[0, 2]] != 0).any(1).all()


def test_padding_changes_no_gradient_of_any_parameter():
    model, image, target = patch_model()
    annotated, valid = torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 1, 16, 16, 16, dtype=torch.bool)
    valid[:, :, 10:] = False
    plain = gradients(model, image, target, annotated, valid)
    scrambled = gradients(model, image, torch.where(valid, target, ~target), annotated, valid)
    assert all(torch.equal(scrambled[name], value) for name, value in plain.items())
    empty = gradients(model, image, target, annotated, torch.zeros_like(valid))
    assert all((value == 0).all() for value in empty.values())


def test_a_step_on_an_annotated_and_absent_class_lowers_its_logits():
    model, image, _ = patch_model()
    annotated = torch.tensor([[False, False, True], [False, False, True]])
    before = model(image).detach()
    downhill = gradients(model, image, torch.zeros(2, 3, 16, 16, 16), annotated)
    with torch.no_grad():
        for name, gradient in downhill.items():
            model.get_parameter(name).sub_(1e-2 * gradient)
        assert model(image)[:, 2].mean() < before[:, 2].mean()


def test_shapes_that_disagree_are_named():
    with pytest.raises(ValueError, match=r"annotated \(1, 3\)"):
        masked_loss(torch.zeros(1, 2, 2, 2, 2), torch.zeros(1, 2, 2, 2, 2), torch.ones(1, 3, dtype=torch.bool))
