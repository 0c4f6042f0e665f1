"""Training on a tiny source: it learns, goes on exactly where it stopped, and stops on values that are not numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models_source import BoxSource

from models.checkpoint import load_model, load_state, read_metadata, save_checkpoint
from models.resume import restore_optimizer
from models.settings import ModelSettings, TrainSettings
from models.train import FINAL, LAST, TrainingDiverged, learnt_parameters, train, train_mode
from models.universal import build_model

MODEL = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))
FAST = {"batch": 2, "lr": 3e-3, "warmup": 2, "device": "cpu", "readers": 0}


def weights(path):
    return dict(load_model(path)[0].state_dict())


def test_training_lowers_the_loss_and_reports(tmp_path):
    seen = []
    settings = TrainSettings(steps=30, **FAST)
    result = train(
        BoxSource(),
        MODEL,
        settings,
        tmp_path,
        lambda step, losses: seen.append((step, losses)),
        table_versions={"cases": 3},
        extra={"flow_run_id": "f"},
    )
    assert [step for step, _ in seen] == list(range(1, 31))
    assert set(seen[0][1]) == {"loss", "bce", "dice", "lr", "grad_norm"}
    early, late = (np.mean([losses["loss"] for _, losses in part]) for part in (seen[:5], seen[-5:]))
    assert late < 0.8 * early
    assert result.final_losses["loss"] == pytest.approx(np.mean([losses["loss"] for _, losses in seen[-3:]]))
    assert (result.steps, result.resumed_from, result.checkpoint) == (30, 0, tmp_path / FINAL)
    assert result.patches_per_s > 0
    assert 0 <= result.data_wait_share <= 1
    metadata = read_metadata(result.checkpoint)
    assert metadata.model == MODEL
    assert metadata.step == 30
    assert metadata.table_versions == {"cases": 3}
    assert metadata.extra == {"flow_run_id": "f"}
    assert metadata.train["lr"] == 3e-3


def test_stopping_and_going_on_gives_the_same_weights(tmp_path):
    settings = TrainSettings(steps=6, **FAST)
    whole = train(BoxSource(), MODEL, settings, tmp_path / "whole")
    half = train(BoxSource(), MODEL, settings, tmp_path / "parts", stop_after=3)
    assert half.checkpoint == tmp_path / "parts" / LAST
    assert half.steps == 3
    rest = train(BoxSource(), MODEL, settings, tmp_path / "parts")
    assert (rest.resumed_from, rest.steps) == (3, 6)
    expected, found = weights(whole.checkpoint), weights(rest.checkpoint)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_readers_change_nothing_but_the_time(tmp_path):
    alone = train(BoxSource(), MODEL, TrainSettings(steps=3, **FAST), tmp_path / "one")
    other = train(BoxSource(), MODEL, TrainSettings(steps=3, **{**FAST, "readers": 2}), tmp_path / "other")
    assert other.final_losses == alone.final_losses


def test_a_finished_run_called_again_does_no_step(tmp_path):
    settings = TrainSettings(steps=2, **FAST)
    first = train(BoxSource(), MODEL, settings, tmp_path)
    steps = []
    again = train(BoxSource(), MODEL, settings, tmp_path, lambda step, _: steps.append(step))
    assert steps == []
    assert again.checkpoint == first.checkpoint


def test_a_folder_with_another_run_is_refused(tmp_path):
    train(BoxSource(), MODEL, TrainSettings(steps=1, **FAST), tmp_path)
    with pytest.raises(ValueError, match=r"lr 0\.003, now 0\.001"):
        train(BoxSource(), MODEL, TrainSettings(steps=1, **{**FAST, "lr": 1e-3}), tmp_path)


def test_a_checkpoint_from_before_a_setting_existed_goes_on(tmp_path):
    settings = TrainSettings(steps=2, **FAST)
    train(BoxSource(), MODEL, settings, tmp_path, stop_after=1)
    last = tmp_path / LAST
    network, metadata = load_model(last)
    older = {name: value for name, value in metadata.train.items() if name not in ("rarity", "class_weights")}
    save_checkpoint(last, network, replace(metadata, train=older), load_state(last))
    assert train(BoxSource(), MODEL, settings, tmp_path).resumed_from == 1
    save_checkpoint(last, network, replace(metadata, train=older), load_state(last))
    with pytest.raises(ValueError, match=r"rarity 0\.0, now 0\.5"):
        train(BoxSource(), MODEL, replace(settings, rarity=0.5), tmp_path)


def test_start_from_takes_over_weights(tmp_path):
    parent = train(BoxSource(), MODEL, TrainSettings(steps=2, **FAST), tmp_path / "a")
    tiny_step = TrainSettings(steps=1, **{**FAST, "lr": 1e-12, "weight_decay": 0.0})
    child = train(BoxSource(), MODEL, tiny_step, tmp_path / "b", start_from=parent.checkpoint)
    before, after = weights(parent.checkpoint), weights(child.checkpoint)
    assert all(torch.allclose(before[name], after[name], atol=1e-8) for name in before)
    other = ModelSettings(classes=("liver",), patch=(16, 16, 16))
    with pytest.raises(ValueError, match="ask for"):
        train(BoxSource(), other, tiny_step, tmp_path / "c", start_from=parent.checkpoint)


def test_nan_stops_with_step_case_and_class_and_stays_out_of_the_checkpoint(tmp_path, monkeypatch):
    import models.train

    real = models.train.masked_loss

    def poisoned(logits, *args, **kwargs):
        poisoned.calls += 1
        return real(logits * float("nan") if poisoned.calls == 3 else logits, *args, **kwargs)

    poisoned.calls = 0
    monkeypatch.setattr(models.train, "masked_loss", poisoned)
    settings = TrainSettings(steps=5, save_every=1, **{**FAST, "batch": 1})
    with pytest.raises(TrainingDiverged, match=r"step 3: the loss is not finite for box/\d: (liver|spleen|aorta)"):
        train(BoxSource(), MODEL, settings, tmp_path)
    assert read_metadata(tmp_path / LAST).step == 2
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / LAST).values())
    assert not (tmp_path / FINAL).exists()


def test_accumulation_sums_batches(tmp_path):
    result = train(BoxSource(), MODEL, TrainSettings(steps=1, accumulate=3, **FAST), tmp_path)
    assert result.steps == 1


def frozen_tiny(backbone_only=True):
    network = build_model(MODEL)
    network.backbone.requires_grad_(False)
    if not backbone_only:
        network.requires_grad_(False)
    return network


def test_only_what_is_not_frozen_is_learnt_and_frozen_parts_stay_in_eval_mode():
    network = frozen_tiny()
    network.backbone.add_module("extra", torch.nn.BatchNorm3d(2).requires_grad_(False))
    train_mode(network)
    assert not any(module.training for module in network.backbone.modules())
    assert network.GAP.training
    assert network.controller.training
    learnt = {id(parameter) for parameter in learnt_parameters(network)}
    assert learnt == {id(p) for name, p in network.named_parameters() if not name.startswith("backbone.")}
    with pytest.raises(ValueError, match="every parameter is frozen"):
        learnt_parameters(frozen_tiny(backbone_only=False))


def test_optimizer_state_of_other_parameters_is_refused(tmp_path):
    train(BoxSource(), MODEL, TrainSettings(steps=2, **FAST), tmp_path, stop_after=1)
    other = torch.optim.AdamW(learnt_parameters(frozen_tiny()))
    with pytest.raises(ValueError, match="freeze the same parts"):
        restore_optimizer(other, tmp_path / LAST)
