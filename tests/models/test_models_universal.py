"""The network: the matrix head against plain convolutions, classes on request, gradients of unannotated classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import models.text_head
from models.backbones import build_backbone
from models.head import PARAMETERS, head_logits
from models.loss import masked_loss
from models.settings import ModelSettings
from models.text import HashingTextEncoder, embed_classes
from models.universal import UniversalModel, build_model

CLASSES = ("liver", "spleen", "right_kidney", "aorta")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(ModelSettings(classes=CLASSES, patch=(16, 16, 16)))


def plain_head(features, parameters):
    """One class after another, three 1x1x1 convolutions each; features (B, 8, N), parameters (B, C, 153)."""
    rows = []
    for b in range(len(features)):
        for p in parameters[b]:
            w1, w2, w3, b1, b2, b3 = p.split([64, 64, 8, 8, 8, 1])
            x = features[b][None, :, :, None, None]
            x = functional.conv3d(x, w1.view(8, 8, 1, 1, 1), b1).relu()
            x = functional.conv3d(x, w2.view(8, 8, 1, 1, 1), b2).relu()
            rows.append(functional.conv3d(x, w3.view(1, 8, 1, 1, 1), b3).flatten())
    return torch.stack(rows).view(len(features), parameters.shape[1], -1)


def test_published_number_of_controller_outputs():
    assert PARAMETERS == 153


def test_head_equals_plain_convolutions_with_gradients():
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(2, 8, 5000, generator=draw)  # more voxels than one chunk
    parameters = torch.randn(2, 3, 153, generator=draw)
    weight = torch.randn(2, 3, 5000, generator=draw)
    results = []
    for function in (head_logits, plain_head):
        f, p = features.clone().requires_grad_(), parameters.clone().requires_grad_()
        logits = function(f, p)
        (logits * weight).sum().backward()
        results.append((logits, f.grad, p.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-3 * float(theirs.detach().abs().max()))


def test_asking_for_classes_gives_their_logits_in_the_order_asked(model):
    model.eval()
    x = torch.rand(2, 1, 16, 32, 16)
    every, some = model(x), model(x, ["aorta", "spleen"])
    assert every.shape == (2, 4, 16, 32, 16)
    assert torch.allclose(some, every[:, [3, 1]], atol=1e-5)


def test_classes_are_asked_for_by_name_or_title(model):
    model.eval()
    x = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(model(x, ["Right kidney"]), model(x, ["right_kidney"]))
    with pytest.raises(KeyError, match=r"no class 'livr'; nearest: liver"):
        model(x, ["livr"])
    with pytest.raises(KeyError, match="no class 'pancreas'"):  # in the taxonomy, but not in this model
        model(x, ["pancreas"])


def test_one_class_asked_for_costs_one_class(model, monkeypatch):
    computed = []
    real = models.text_head.head_logits
    monkeypatch.setattr(
        models.text_head, "head_logits", lambda f, p, w: (computed.append(p.shape[1]), real(f, p, w))[1]
    )
    model(torch.rand(1, 1, 16, 16, 16), ["aorta"])
    assert computed == [1]


def test_free_rows_come_behind_the_classes(model):
    model.eval()
    x = torch.rand(2, 1, 16, 16, 16)
    rows = model.organ_embedding[[2, 0]]
    both = model(x, ["spleen"], rows=rows)
    assert both.shape == (2, 3, 16, 16, 16)
    assert torch.equal(both[:, :1], model(x, ["spleen"]))
    assert torch.equal(both[:, 1:], model(x, ["right_kidney", "liver"]))
    assert torch.equal(model(x, [], rows=rows), both[:, 1:])
    with pytest.raises(ValueError, match="no class and no text row"):
        model(x, [])


def test_unwanted_pairs_are_skipped_and_change_nothing_else(model):
    x = torch.rand(2, 1, 16, 16, 16)
    wanted = torch.tensor([[True, False, True, False], [False, False, False, False]])
    target = torch.rand(2, 4, 16, 16, 16) > 0.7
    gradients = []
    for argument in (wanted, None):
        model.zero_grad()
        logits = model(x, wanted=argument)
        masked_loss(logits, target, wanted)[0].backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        if argument is not None:
            assert (logits[~wanted] == 0).all()
            assert torch.allclose(logits[wanted], model(x)[wanted], atol=1e-5)
    for name, ours in gradients[0].items():
        assert torch.allclose(ours, gradients[1][name], atol=1e-5), name


def test_samples_of_a_batch_do_not_see_each_other(model):
    model.eval()
    x = torch.rand(2, 1, 16, 16, 16)
    assert torch.allclose(model(x)[1], model(x[1:])[0], atol=1e-4)


def test_an_unannotated_class_gets_no_gradient_on_any_parameter(model):
    x = torch.rand(1, 1, 16, 16, 16)
    target = torch.rand(1, 4, 16, 16, 16) > 0.7
    annotated = torch.tensor([[True, False, True, False]])
    model.organ_embedding.requires_grad_()  # one row per class: the only numbers a class has to itself
    model.zero_grad()
    masked_loss(model(x), target, annotated)[0].backward()
    mixed = {name: p.grad.clone() for name, p in model.named_parameters()}
    rows = model.organ_embedding.grad.abs().sum(1)
    assert (rows[~annotated[0]] == 0).all()
    assert (rows[annotated[0]] > 0).all()
    target[:, ~annotated[0]] = ~target[:, ~annotated[0]]
    model.zero_grad()
    masked_loss(model(x), target, annotated)[0].backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, mixed[name]), name
    model.zero_grad()
    masked_loss(model(x, ["liver", "right_kidney"]), target[:, [0, 2]], annotated[:, [0, 2]])[0].backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, mixed[name], atol=1e-5), name


def test_keys_are_the_published_ones(model):
    heads = {name.split(".")[0] for name in model.state_dict()}
    assert heads == {"organ_embedding", "backbone", "precls_conv", "GAP", "controller", "text_to_vision"}


def test_embeddings_of_other_classes_are_refused():
    embeddings = embed_classes(HashingTextEncoder(), "V1", ("liver",))
    with pytest.raises(ValueError, match="embeddings are of"):
        build_model(ModelSettings(classes=("spleen",)), embeddings)


def test_embeddings_are_stored_as_given():
    rows = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    assert np.array_equal(UniversalModel(build_backbone("tiny"), rows, ("a", "b", "c")).organ_embedding.numpy(), rows)
