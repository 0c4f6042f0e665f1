"""What is stored with a model, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoint import ModelMetadata, load_model, load_state, read_metadata, save_checkpoint
from models.settings import ModelSettings
from models.text import HashingTextEncoder, embed_classes
from models.universal import build_model

SETTINGS = ModelSettings(classes=("liver", "spleen"), patch=(16, 16, 16))


@pytest.fixture
def stored(tmp_path):
    torch.manual_seed(1)
    rows = embed_classes(HashingTextEncoder(), "V1", SETTINGS.classes)
    model = build_model(SETTINGS, rows)
    metadata = ModelMetadata(SETTINGS, rows.encoder, rows.prompt, rows.digest, step=5, extra={"a": "b"})
    path = save_checkpoint(tmp_path / "run" / "m.safetensors", model, metadata, {"0.step": torch.tensor(5.0)})
    return model, metadata, path


def test_round_trip_gives_the_same_logits_and_metadata(stored):
    model, metadata, path = stored
    loaded, found = load_model(path)
    assert found == metadata
    x = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(loaded(x), model.eval()(x))
    assert not loaded.training
    assert load_state(path)["0.step"] == 5
    assert [file.name for file in path.parent.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_is_refused_unread(tmp_path, zipped):
    path = tmp_path / "model.safetensors"
    torch.save({"net": {}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="a pickle"):
        load_model(path)


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_a_header_whose_length_looks_like_a_pickle_is_read(stored, start):
    # safetensors begin with the length of their header, in eight bytes, the lowest first
    model, metadata, path = stored
    before = int.from_bytes(path.read_bytes()[:8], "little")
    modulus = 256 ** len(start)
    more = (int.from_bytes(start, "little") - before) % modulus
    longer = replace(metadata, extra={"a": "b" + "b" * more})
    save_checkpoint(path, model, longer)
    # the header is padded to a multiple of eight, and lost the state's entry
    for _ in range(200):
        if path.read_bytes()[: len(start)] == start:
            break
        more += 8
        longer = replace(metadata, extra={"a": "b" + "b" * more})
        save_checkpoint(path, model, longer)
    assert path.read_bytes()[: len(start)] == start
    assert read_metadata(path) == longer


def test_torn_foreign_and_missing_files_are_told_apart(stored, tmp_path):
    *_, path = stored
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors"):
        load_model(torn)
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="without our metadata"):
        load_model(tmp_path / "foreign.safetensors")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_model(tmp_path / "nowhere.safetensors")


def rewrite(path, tensors=None, **changes):
    values = {**json.loads(read_metadata(path).as_json()), **changes}
    save_file(tensors or load_file(path), path, {"ctfactory": json.dumps(values)})


def test_changed_embeddings_are_refused(stored):
    *_, path = stored
    tensors = load_file(path)
    tensors["model.organ_embedding"] = tensors["model.organ_embedding"].flip(0)
    rewrite(path, tensors)
    with pytest.raises(ValueError, match="embeddings differ"):
        load_model(path)


def test_wrong_class_count_is_refused(stored):
    *_, path = stored
    values = json.loads(read_metadata(path).as_json())["model"]
    rewrite(path, model={**values, "classes": ["liver"]})
    with pytest.raises(ValueError, match="2 class embeddings for 1 classes"):
        load_model(path)


def test_every_misfit_weight_is_listed(stored):
    *_, path = stored
    tensors = load_file(path)
    del tensors["model.GAP.3.bias"]
    tensors["model.extra"] = torch.zeros(1)
    tensors["model.controller.bias"] = torch.zeros(7)
    rewrite(path, tensors)
    with pytest.raises(ValueError) as error:
        load_model(path)
    for part in ("missing GAP.3.bias", "unexpected extra", "controller.bias (7,), expected (153,)"):
        assert part in str(error.value)


def test_weights_that_are_not_finite_are_not_saved(stored, tmp_path):
    model, metadata, _ = stored
    with torch.no_grad():
        model.controller.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"controller\.bias holds NaN"):
        save_checkpoint(tmp_path / "bad.safetensors", model, metadata)
    assert not (tmp_path / "bad.safetensors").exists()
