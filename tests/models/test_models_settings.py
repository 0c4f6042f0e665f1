"""Settings refuse what makes no sense; presets refuse unknown keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.settings import (
    PRESETS,
    ModelSettings,
    TrainSettings,
    as_mapping,
    load_preset,
    model_settings,
    train_settings,
)


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_loads(name):
    preset = load_preset(name)
    assert len(preset.model.classes) == 32
    assert preset.train.steps > 0


def test_paper_preset_holds_the_published_numbers():
    preset = load_preset("paper")
    assert (preset.train.lr, preset.train.weight_decay, preset.train.batch) == (4e-4, 1e-5, 6)
    assert preset.model.patch == (96, 96, 96)
    assert preset.model.hu_window == (-175, 250)


def test_the_paper_is_given_for_both_of_its_backbones():
    swin, unet = load_preset("paper"), load_preset("paper_unet")
    assert (swin.model.backbone, unet.model.backbone) == ("swinunetr", "unet")
    assert replace(unet.model, backbone="swinunetr") == swin.model
    assert unet.train == swin.train
    assert swin.train.steps == 50 * round(3410 / swin.train.batch)
    assert swin.train.clip_norm == 0


def test_unknown_keys_and_sections_are_errors(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("train: {stepz: 3}")
    with pytest.raises(KeyError, match=r"own\.yaml: train: unknown key stepz .did you mean steps..; known keys: steps"):
        load_preset(path)
    path.write_text("optimiser: {}")
    with pytest.raises(KeyError, match="unknown section optimiser"):
        load_preset(path)
    with pytest.raises(FileNotFoundError, match="demo, fine_tune, paper, paper_unet"):
        load_preset("nonsense")


def test_weights_are_read_from_a_preset_and_kept_with_the_weights_of_the_network(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("train: {dataset_weights: {lits: 2}, class_weights: {pancreas_tumor: 3.5}, lesion_weight: 2}")
    settings = load_preset(path).train
    assert as_mapping(settings)["class_weights"] == {"pancreas_tumor": 3.5}
    assert train_settings(as_mapping(settings)) == settings
    path.write_text("train: {class_weights: {pancreas tumour: 3.5}}")
    with pytest.raises(KeyError, match="pancreas_tumor"):
        load_preset(path)


def test_single_values_can_be_replaced():
    preset = load_preset("demo", model={"patch": [32, 32, 32]}, train={"steps": 7})
    assert preset.model.patch == (32, 32, 32)
    assert preset.train.steps == 7


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ModelSettings, {"hu_window": (250, -175)}, "low < high"),
        (ModelSettings, {"patch": (96, 96, 4)}, "at least 8"),
        (ModelSettings, {"spacing_mm": (1.5, 1.5, 0)}, "positive"),
        (ModelSettings, {"classes": ("liver", "liver")}, "repeats"),
        (TrainSettings, {"steps": 0}, "train.steps: 0"),
        (TrainSettings, {"lr": float("nan")}, "train.lr: nan"),
        (TrainSettings, {"foreground": 1.2}, "train.foreground: 1.2"),
        (TrainSettings, {"precision": "fp8"}, "bf16-mixed"),
        (TrainSettings, {"ema": 1.0}, "train.ema: 1.0"),
        (TrainSettings, {"loss_weights": {"liver": -1}}, "liver has -1"),
        (TrainSettings, {"rarity": 1.5}, "train.rarity: 1.5"),
        (TrainSettings, {"lesion_weight": -1.0}, "train.lesion_weight: -1"),
        (TrainSettings, {"dataset_weights": {"lits": float("inf")}}, "lits has inf"),
        (TrainSettings, {"dataset_weights": {"lits": "twice"}}, "lits has 'twice'"),
        (TrainSettings, {"class_weights": ["liver"]}, "a name and a weight"),
        (TrainSettings, {"dice_weight": 0.0, "bce_weight": 0.0}, "raise one"),
    ],
)
def test_bad_values_are_refused_with_the_value(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_unknown_class_names_the_nearest():
    with pytest.raises(KeyError, match="right_kidney"):
        ModelSettings(classes=("right_kidny",))


def test_settings_survive_json():
    settings = ModelSettings(classes=("liver", "aorta"))
    assert model_settings(as_mapping(settings)) == settings
    assert settings.channels == (5, 7)
    assert settings.select(["Aorta"]) == ("aorta",)
    with pytest.raises(KeyError, match="no class 'spleen'"):
        settings.select(["spleen"])


def test_learning_rate_climbs_then_follows_the_cosine():
    settings = TrainSettings(steps=110, warmup=10, lr=1e-3)
    assert settings.lr_at(0) == pytest.approx(1e-4)
    assert settings.lr_at(9) == pytest.approx(1e-3)
    assert settings.lr_at(60) == pytest.approx(5e-4)
    assert settings.lr_at(110) == pytest.approx(0, abs=1e-12)
