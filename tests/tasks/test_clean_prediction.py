"""Cleaning as part of a prediction: what it did travels with the masks, and names the annotation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, empty_bits, get_channel, set_channel
from imaging.volume import Volume
from models.checkpoint import ModelMetadata, save_checkpoint
from models.infer import Prediction, Scores
from models.settings import ModelSettings
from models.text import embed_classes, text_encoder
from models.universal import build_model
from tasks.prediction import clean_prediction
from tasks.pseudo_label_plan import base_name
from tasks.settings import Settings
from tasks.teacher import teacher_of

AFFINE = np.array([[4.0, 0, 0, -40], [0, 4.0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 1]])
SHAPE = (20, 12, 6)


def body() -> Volume:
    """A body of water, 18 x 10 x 6 voxels, its middle at x = 0 mm less half a voxel."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[1:19, 1:11] = 0
    return Volume(hu, AFFINE)


def bits_of(**places: tuple[slice, slice, slice]) -> Bits:
    bits = empty_bits(SHAPE, 32)
    for name, place in places.items():
        mask = np.zeros(SHAPE, dtype=bool)
        mask[place] = True
        set_channel(bits, class_info(name).channel, mask)
    return bits


def unread() -> Volume:
    raise AssertionError("the image was read, though no sides were to be told")


RIGHT, LEFT = (slice(13, 17), slice(2, 5), slice(1, 5)), (slice(3, 7), slice(2, 5), slice(1, 5))
LIVER = (slice(11, 18), slice(6, 10), slice(1, 5))
NAMES = ["liver", "spleen", "right_kidney", "left_kidney"]


def test_the_image_tells_the_middle_and_the_prediction_carries_what_was_done() -> None:
    bits = bits_of(liver=LIVER, left_kidney=RIGHT)
    prediction = Prediction(bits, Scores({}, {}, ("smaller batches",)))
    found = clean_prediction(prediction, NAMES, AFFINE, body, Settings())
    assert int(get_channel(found.bits, class_info("right_kidney").channel).sum()) == 4 * 3 * 4
    assert found.cleaned is not None
    assert found.cleaned.bits is found.bits
    assert found.cleaned.record["left_kidney"] == [{"rule": "sides", "removed": 48, "added": 0}]
    assert found.scores.remarks == ("smaller batches",)


def test_what_could_not_be_done_is_said_and_joins_the_remarks() -> None:
    said: list[str] = []
    mirrored = Prediction(bits_of(right_kidney=LEFT, left_kidney=RIGHT), Scores({}, {}))
    found = clean_prediction(mirrored, NAMES, AFFINE, body, Settings(), said.append)
    assert np.array_equal(found.bits, mirrored.bits)
    assert found.scores.remarks == tuple(said)
    assert "situs inversus" in said[0]


def test_rules_are_those_of_the_settings_and_the_image_is_read_for_sides_only() -> None:
    prediction = Prediction(bits_of(left_kidney=RIGHT), Scores({}, {}))
    for rules, names in (("-sides", NAMES), ("none", NAMES), ("all", ["liver", "left_kidney"])):
        found = clean_prediction(prediction, names, AFFINE, unread, Settings(cleaning=rules))
        assert np.array_equal(found.bits, prediction.bits)


def test_other_rules_name_another_annotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSettings(classes=("liver", "spleen"), patch=(32, 32, 16))
    embeddings = embed_classes(text_encoder(model.text_encoder), model.prompt, model.classes)
    about = ModelMetadata(model, embeddings.encoder, model.prompt, embeddings.digest)
    weights = save_checkpoint(tmp_path / "model.safetensors", build_model(model, embeddings), about)

    def named(rules: str) -> str:
        return base_name(teacher_of([weights]), Settings(cleaning=rules))

    assert named("all") == named("all,") != named("-holes")
    (tmp_path / "own.yaml").write_text("classes: [{index: 33, name: cyst, kind: cyst, parents: [spleen]}]")
    before = named("all")
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(tmp_path / "own.yaml"))
    assert named("all") == before  # a class that the model does not have changes nothing
