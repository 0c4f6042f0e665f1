"""Training on a tiny source: it learns, goes on exactly where it stopped, and stops on values that are not numbers."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from models_source import BoxSource

from models.checkpoint import load_model, load_state, read_metadata, save_checkpoint
from models.ema import MovingAverage
from models.learner import Learner, learnt_parameters
from models.ranks import Job, launch
from models.resume import restore_optimizer, restore_state, training_state
from models.sampling import Packed, PatchSampler
from models.settings import ModelSettings, TrainSettings
from models.train import FINAL, LAST, TrainingDiverged, train
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
    parts = {"loss", "bce", "dice", "lr", "grad_norm"}
    assert set(seen[0][1]) == {*parts, "patches_per_s", "data_wait_share", "seconds_left"}
    assert set(result.final_losses) == parts
    assert seen[-1][1]["seconds_left"] == 0 < seen[0][1]["seconds_left"]
    assert all(row["patches_per_s"] > 0 and 0 <= row["data_wait_share"] <= 1 for _, row in seen)
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
    import models.learner

    real = models.learner.masked_loss

    def poisoned(logits, *args, **kwargs):
        poisoned.calls += 1
        return real(logits * float("nan") if poisoned.calls == 3 else logits, *args, **kwargs)

    poisoned.calls = 0
    monkeypatch.setattr(models.learner, "masked_loss", poisoned)
    settings = TrainSettings(steps=5, save_every=1, **{**FAST, "batch": 1})
    with pytest.raises(TrainingDiverged, match=r"step 3: the loss is not finite for box/\d: (liver|spleen|aorta)"):
        train(BoxSource(), MODEL, settings, tmp_path)
    assert read_metadata(tmp_path / LAST).step == 2
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / LAST).values())
    assert not (tmp_path / FINAL).exists()


def test_an_image_that_is_not_finite_is_named_and_no_weight_moves(tmp_path, monkeypatch):
    real = Packed.unpack

    def poisoned(packed):
        batch = real(packed)
        poisoned.calls += 1
        for row, case_id in enumerate(batch.case_ids):
            if case_id == "box/1" and poisoned.calls > 3:
                batch.image[row, 0, 3, 4, 5] = float("nan")
        return batch

    poisoned.calls = 0
    monkeypatch.setattr(Packed, "unpack", poisoned)
    settings = TrainSettings(steps=40, save_every=1, ema=0.9, **FAST)
    done = []
    with pytest.raises(TrainingDiverged, match=r"the image is not finite in box/1: 1 voxels") as raised:
        train(BoxSource(), MODEL, settings, tmp_path, lambda step, _: done.append(step))
    assert len(done) >= 3
    assert f"step {len(done) + 1}:" in str(raised.value)
    for tensors in (weights(tmp_path / LAST), load_state(tmp_path / LAST)):
        assert all(torch.isfinite(value).all() for value in tensors.values())


def test_the_loss_scale_of_half_precision_goes_on():
    network = build_model(MODEL)
    optimizer = torch.optim.AdamW(network.parameters())
    loss = network(torch.rand(1, 1, 16, 16, 16)).mean()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    state = training_state(optimizer, None, scaler)
    other = torch.amp.GradScaler("cpu")
    restore_state(state, torch.optim.AdamW(network.parameters()), None, other)
    assert other.state_dict() == scaler.state_dict()
    assert other.state_dict()["_growth_tracker"] == 1


def test_half_precision_whose_loss_scale_cannot_help_is_stopped():
    fabric = launch(TrainSettings(**FAST))
    network = build_model(MODEL)
    sampler = PatchSampler(BoxSource(), MODEL, TrainSettings(**FAST))
    learner = Learner(fabric, Job(network, sampler, TrainSettings(**FAST), {}, 0, 1))
    for scale, stops in ((1024.0, False), (0.5, True)):
        learner._scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        learner._scaler.scale(torch.zeros(1))  # which makes it take up its scale
        with pytest.raises(TrainingDiverged) if stops else nullcontext():
            learner._check(0, [], 1.0, float("inf"))
    with pytest.raises(TrainingDiverged):
        learner._check(0, [], float("nan"), 1.0)


def test_a_moving_average_that_is_not_finite_is_not_stored():
    network = build_model(MODEL)
    average = MovingAverage(network, 0.9)
    average.update(network)
    network.controller.bias.data[0] = float("nan")
    average.update(network)
    with pytest.raises(ValueError, match=r"moving average: .*controller\.bias holds NaN"):
        training_state(torch.optim.AdamW(network.parameters()), average, None)


def test_the_final_model_holds_the_moving_average(tmp_path):
    decay, steps = 0.5, 4
    settings = TrainSettings(steps=steps, ema=decay, save_every=1, **FAST)
    result = train(BoxSource(), MODEL, settings, tmp_path)
    after = []
    # the weights after each step, from runs that end there
    for step in range(1, steps + 1):
        train(BoxSource(), MODEL, settings, tmp_path / str(step), stop_after=step)
        after.append(weights(tmp_path / str(step) / LAST))
    expected = dict(after[0])
    for n, now in enumerate(after[1:], 1):
        keep = min(decay, (1 + n) / (10 + n))
        expected = {name: keep * value + (1 - keep) * now[name] for name, value in expected.items()}
    found = weights(result.checkpoint)
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    assert any(not torch.equal(found[name], after[-1][name]) for name in found)


def test_a_moving_average_cannot_be_added_in_the_middle(tmp_path):
    train(BoxSource(), MODEL, TrainSettings(steps=2, **FAST), tmp_path, stop_after=1)
    with pytest.raises(ValueError, match=r"ema 0\.0, now 0\.9"):
        train(BoxSource(), MODEL, TrainSettings(steps=2, ema=0.9, **FAST), tmp_path)


def test_a_class_without_weight_in_the_loss_is_not_learnt(tmp_path):
    seen = []
    settings = TrainSettings(steps=2, loss_weights={"liver": 0, "spleen": 0, "aorta": 0}, **FAST)
    train(BoxSource(), MODEL, settings, tmp_path, lambda _, losses: seen.append(losses))
    assert [(row["loss"], row["grad_norm"]) for row in seen] == [(0, 0), (0, 0)]
    only = TrainSettings(steps=1, loss_weights={"spleen": 0, "aorta": 0}, **FAST)
    train(BoxSource(), MODEL, only, tmp_path / "liver", lambda _, losses: seen.append(losses))
    assert seen[-1]["grad_norm"] > 0


def test_a_compiled_backbone_keeps_its_keys_and_learns_the_same(tmp_path, monkeypatch):
    real = torch.nn.Module.compile
    # the graph is taken, but no C++ compiled from it, which takes a minute
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: real(module, backend="eager"))
    plain = train(BoxSource(), MODEL, TrainSettings(steps=2, **FAST), tmp_path / "plain")
    fast = train(BoxSource(), MODEL, TrainSettings(steps=2, compile=True, **FAST), tmp_path / "fast")
    expected, found = weights(plain.checkpoint), weights(fast.checkpoint)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(found[name], value, atol=1e-4) for name, value in expected.items())


@pytest.mark.parametrize(("along_x", "right"), [(16, False), (32, False), (48, True)])
def test_bf16_is_refused_where_a_cpu_has_wrong_gradients(tmp_path, along_x, right):
    # `tiny` halves four times: its deepest map is 1, 2 or 3 long
    model = replace(MODEL, patch=(along_x, 16, 16))
    settings = TrainSettings(steps=1, precision="bf16-mixed", **FAST)
    with nullcontext() if right else pytest.raises(ValueError, match=r"2 long.*32-true, or at least 48 voxels along X"):
        train(BoxSource(), model, settings, tmp_path)
    assert (tmp_path / FINAL).exists() == right


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
    network.GAP.add_module("frozen", torch.nn.BatchNorm3d(2).requires_grad_(False))
    network.backbone.add_module("extra", torch.nn.BatchNorm3d(2).requires_grad_(False))
    network.train()
    assert not any(module.training for module in network.backbone.modules())
    assert network.GAP.training
    assert not network.GAP.frozen.training
    assert network.controller.training
    learnt = {id(parameter) for parameter in learnt_parameters(network)}
    assert learnt == {
        id(p) for name, p in network.named_parameters() if not name.startswith(("backbone.", "GAP.frozen."))
    }
    with pytest.raises(ValueError, match="every parameter is frozen"):
        learnt_parameters(frozen_tiny(backbone_only=False))


def test_optimizer_state_of_other_parameters_is_refused(tmp_path):
    train(BoxSource(), MODEL, TrainSettings(steps=2, **FAST), tmp_path, stop_after=1)
    other = torch.optim.AdamW(learnt_parameters(frozen_tiny()))
    with pytest.raises(ValueError, match="freeze the same parts"):
        restore_optimizer(load_state(tmp_path / LAST), other)
