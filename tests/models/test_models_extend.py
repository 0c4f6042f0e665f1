"""More classes for a trained model: the older ones keep their logits to the last bit, through everything."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from models_source import BoxSource
from safetensors.torch import load_file, save_file
from torch import nn

from models.backbone_unet import BatchStatisticsNorm
from models.backbones import build_backbone
from models.checkpoint import load_model, read_metadata
from models.extend import add_classes, freeze, settings_from, trunk_of
from models.extension_head import ExtensionHead
from models.infer import predict_bits
from models.settings import ModelSettings, TrainSettings
from models.text import RandomTextEncoder, embed_classes
from models.train import LAST, train
from models.universal import UniversalModel

OLD = ModelSettings(classes=("aorta", "liver"), patch=(16, 16, 16))
MORE = replace(OLD, classes=("aorta", "liver", "spleen", "left_kidney"))
FAST = {"batch": 2, "lr": 3e-3, "warmup": 2, "device": "cpu", "readers": 0, "foreground": 1.0}
SCANS = torch.rand(3, 1, 16, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A checkpoint that was trained on liver and aorta."""
    extra = {"licence": "CC BY-NC-ND 4.0", "trained_classes": "aorta,liver"}
    return train(
        BoxSource(), OLD, TrainSettings(steps=4, **FAST), tmp_path_factory.mktemp("parent"), extra=extra
    ).checkpoint


@pytest.fixture(scope="module")
def child(parent, tmp_path_factory):
    """The same with spleen and left kidney added and the spleen trained."""
    out = tmp_path_factory.mktemp("child")
    settings = TrainSettings(steps=6, save_every=2, ema=0.9, **FAST)
    return train(
        BoxSource(), MORE, settings, out, start_from=parent, extra={"parent": "models:/universal/1"}
    ).checkpoint


def logits(model, batch, **asked):
    with torch.inference_mode():
        return torch.cat([model(part, **asked) for part in SCANS.split(batch)])


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_older_classes_keep_their_logits_to_the_last_bit(parent, child, batch):
    before, after = load_model(parent)[0], load_model(child)[0]
    old = logits(before, batch)
    assert torch.equal(logits(after, batch)[:, :2], old)
    assert torch.equal(logits(after, batch, classes=OLD.classes), old)
    assert torch.equal(logits(after, batch, classes=["spleen", "aorta", "left_kidney", "liver"])[:, [1, 3]], old)
    assert torch.equal(logits(after, batch, classes=["liver"]), logits(before, batch, classes=["liver"]))


def test_older_masks_stay_and_new_ones_come(parent, child):
    image = BoxSource().images["box/1"]
    before, old = load_model(parent)
    after, new = load_model(child)
    masks = predict_bits(before, old, image)
    alone = predict_bits(after, new, image, classes=OLD.classes)
    every = predict_bits(after, new, image)
    assert np.array_equal(alone.bits, masks.bits)
    assert alone.mean_prob == pytest.approx(masks.mean_prob, abs=0, nan_ok=True)
    assert set(every.mean_prob) == set(MORE.classes)


def test_only_the_new_head_was_trained(parent, child):
    before, after = load_model(parent)[0].state_dict(), load_model(child)[0].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    added = after.keys() - before.keys()
    assert added
    assert all(name.startswith("extensions.0.") for name in added)


def test_the_new_class_is_learnt_by_its_head(parent, tmp_path):
    seen = []
    settings = TrainSettings(steps=20, **FAST)
    train(BoxSource(), MORE, settings, tmp_path, lambda _, losses: seen.append(losses["loss"]), start_from=parent)
    assert np.mean(seen[-5:]) < 0.8 * np.mean(seen[:5])


def test_metadata_says_what_was_added_frozen_and_inherited(parent, child):
    old, new = read_metadata(parent), read_metadata(child)
    assert new.model == MORE
    assert new.own_classes == OLD.classes
    (added,) = new.extensions
    assert added.classes == ("spleen", "left_kidney")
    assert (added.encoder, added.prompt) == (old.encoder, old.prompt)
    assert new.embeddings_digest == old.embeddings_digest
    assert new.frozen == ("backbone", "precls_conv", "GAP", "controller", "text_to_vision")
    assert new.extra == {**old.extra, "parent": "models:/universal/1"}
    assert new.step == 6


def test_going_on_after_a_stop_gives_the_same_weights(parent, child, tmp_path):
    settings = TrainSettings(steps=6, save_every=2, ema=0.9, **FAST)
    train(BoxSource(), MORE, settings, tmp_path, start_from=parent, stop_after=3)
    rest = train(BoxSource(), MORE, settings, tmp_path, start_from=parent)
    assert rest.resumed_from == 3
    whole, parts = load_model(child)[0].state_dict(), load_model(rest.checkpoint)[0].state_dict()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert read_metadata(tmp_path / LAST).frozen == read_metadata(child).frozen


def test_a_second_extension_leaves_the_first_alone(child):
    model, metadata = load_model(child)
    old = logits(model, 2)
    model, metadata = add_classes(model, metadata, ["Pancreas"])
    assert torch.equal(logits(model.eval(), 2)[:, :4], old)
    assert metadata.frozen[-1] == "extensions.0"
    assert model.learnable == ("pancreas",)
    assert metadata.model.classes == (*MORE.classes, "pancreas")


def test_fine_tuning_with_the_same_classes_trains_everything(child, tmp_path):
    settings = TrainSettings(steps=1, **{**FAST, "batch": 8})  # enough for cases of both kinds
    result = train(BoxSource(), MORE, settings, tmp_path, start_from=child)
    before, after = load_model(child)[0].state_dict(), load_model(result.checkpoint)[0].state_dict()
    for name in ("backbone.edges.weight", "controller.weight", "extensions.0.controller.weight"):
        assert not torch.equal(before[name], after[name]), name
    assert read_metadata(result.checkpoint).frozen == ()


@pytest.mark.parametrize("encoder", ["hashing", "random"])
def test_transfer_takes_the_backbone_and_the_head_where_the_text_means_the_same(child, tmp_path, encoder):
    other = ModelSettings(classes=("spleen",), patch=(16, 16, 16), text_encoder=encoder)
    still = TrainSettings(steps=1, **{**FAST, "lr": 1e-12, "weight_decay": 0.0})
    result = train(BoxSource(), other, still, tmp_path, start_from=child, transfer=True)
    before, after = load_model(child)[0].state_dict(), load_model(result.checkpoint)[0].state_dict()
    assert not any(name.startswith("extensions") for name in after)
    for name, value in after.items():
        same = name in before and before[name].shape == value.shape and torch.allclose(before[name], value, atol=1e-8)
        taken = name.startswith("backbone.") or (encoder == "hashing" and name != "organ_embedding")
        if taken:
            assert same, name
        elif name.endswith("weight") and name.split(".")[1] != "0":
            assert not same, name
    metadata = read_metadata(result.checkpoint)
    assert metadata.model == other
    assert metadata.extensions == ()
    assert metadata.extra["licence"] == "CC BY-NC-ND 4.0"


def test_settings_of_a_network_that_goes_on_are_its_own_but_for_the_classes():
    assert settings_from(OLD) == OLD
    assert settings_from(OLD, ["Spleen", "left kidney"]) == MORE
    assert settings_from(OLD, instead=["liver"], text_encoder="random") == replace(
        OLD, classes=("liver",), text_encoder="random"
    )
    with pytest.raises(ValueError, match="found both, expected one"):
        settings_from(OLD, ["spleen"], ["liver"])
    with pytest.raises(ValueError, match="has liver already"):
        settings_from(OLD, ["liver"])


def test_another_encoder_for_new_classes_is_asked_for_by_name(parent, tmp_path):
    other = replace(MORE, text_encoder="random")
    result = train(BoxSource(), other, TrainSettings(steps=1, **FAST), tmp_path, start_from=parent)
    metadata = read_metadata(result.checkpoint)
    assert metadata.extensions[0].encoder == RandomTextEncoder.id
    assert metadata.encoder != RandomTextEncoder.id
    assert metadata.model.text_encoder == "hashing"  # of the model's own rows


def test_a_new_head_begins_on_the_features_as_they_are():
    torch.manual_seed(0)
    head = ExtensionHead(32, 16, torch.randn(2, 512), ("a", "b"))
    deep, last = torch.randn(1, 32, 3, 2, 2), torch.randn(1, 16, 9, 8, 7)  # odd sizes too
    assert torch.equal(head.refine(deep, last), last)
    head.logits(deep, last, head.organ_embedding).sum().backward()
    assert head.refine.back.weight.grad.abs().sum() > 0


def test_frozen_parts_stay_in_eval_mode():
    unet = UniversalModel(build_backbone("unet"), torch.randn(1, 512), ("liver",))
    unet.add_extension(torch.randn(1, 512), ("spleen",))
    freeze(unet, trunk_of(unet))
    unet.train()
    norms = [part for part in unet.modules() if isinstance(part, BatchStatisticsNorm)]
    assert norms
    assert not any(part.training for part in norms)
    assert unet.extensions[0].training
    assert unet.learnable == ("spleen",)
    freeze(unet, ())
    assert all(part.training for part in unet.train().modules() if isinstance(part, nn.Module))


def test_what_cannot_be_added_is_refused(parent):
    with pytest.raises(ValueError, match="has liver already"):
        add_classes(*load_model(parent), ["Liver"])
    with pytest.raises(KeyError, match=r"nearest: .*left_kidney"):
        add_classes(*load_model(parent), ["left kidny"])
    with pytest.raises(ValueError, match="name each new class once"):
        add_classes(*load_model(parent), ["spleen", "spleen"])
    model, metadata = load_model(parent)
    with pytest.raises(ValueError, match="the model's rows are of open_clip/x"):
        add_classes(model, replace(metadata, encoder="open_clip/x"), ["spleen"])
    rows = embed_classes(RandomTextEncoder(), "V1", ("spleen",))  # said aloud, another encoder is welcome
    assert add_classes(model, metadata, ["spleen"], rows)[1].extensions[0].encoder == RandomTextEncoder.id


def test_older_classes_keep_their_place_and_their_grid(parent, tmp_path):
    settings = TrainSettings(steps=1, **FAST)
    with pytest.raises(ValueError, match="new ones behind them"):
        train(BoxSource(), replace(OLD, classes=("liver", "aorta", "spleen")), settings, tmp_path, start_from=parent)
    with pytest.raises(ValueError, match=r"patch \(16, 16, 16\), asked for \(32, 16, 16\)"):
        train(BoxSource(), replace(MORE, patch=(32, 16, 16)), settings, tmp_path, start_from=parent)


def rewrite(path, change):
    metadata = json.loads(read_metadata(path).as_json())
    change(metadata)
    save_file(load_file(path), path, {"ctfactory": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["model"]["classes"].pop(), "its extensions are of spleen, left_kidney"),
        (lambda m: m["model"]["classes"].reverse() or m["indices"].reverse(), "its extensions are of spleen"),
        (lambda m: m["indices"].__setitem__(2, 33), "spleen is class 1, the model was trained with 33"),
        (lambda m: m["model"]["classes"].__setitem__(3, "left_renal_vein"), "left_renal_vein are not among the 32"),
        (lambda m: m["extensions"][0].update(embeddings_digest="0"), "extensions.0.organ_embedding: class embeddings"),
        (lambda m: m.update(extensions=[]), "organ_embedding holds 2 class embeddings for 4 classes"),
        (lambda m: m.update(format="ct-label-factory-model-9"), "format 'ct-label-factory-model-9'"),
    ],
)
def test_a_checkpoint_whose_classes_do_not_add_up_is_refused(child, tmp_path, change, message):
    path = tmp_path / "m.safetensors"
    path.write_bytes(child.read_bytes())
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_a_checkpoint_of_the_first_format_is_read(parent, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(parent.read_bytes())

    def to_first(metadata):
        metadata["format"] = "ct-label-factory-model-1"
        for name in ("extensions", "frozen", "indices"):
            del metadata[name]

    rewrite(path, to_first)
    model, metadata = load_model(path)
    assert metadata == read_metadata(parent)
    assert torch.equal(logits(model, 3), logits(load_model(parent)[0], 3))
