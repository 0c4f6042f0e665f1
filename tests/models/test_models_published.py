"""The authors' files: keys renamed, nothing in them run, and each way in which one does not fit told with a remedy."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from golden_vectors import authors_file, filled

from datasets_registry.taxonomy import class_names
from models import published
from models.checkpoint import load_model, read_metadata
from models.licence import PUBLISHED_LICENCE, licence_notice
from models.published import PUBLISHED_CLASSES, Published, convert, our_keys, sides_apart
from models.resume import begin_model
from models.settings import ModelSettings, TrainSettings
from models.text import PUBLISHED_ENCODER
from models.universal import build_model

EXTRA = PUBLISHED_LICENCE.entries("unet.pth", "0" * 64)


@pytest.fixture(autouse=True)
def tiny_is_published(monkeypatch):
    """The smallest network stands in for the authors' of 19 and 62 million weights, whose parity is tested apart."""
    monkeypatch.setitem(published.PUBLISHED, "tiny", Published("tiny", "tiny.pth", "edges"))


@pytest.fixture(scope="module")
def state():
    return filled(build_model(ModelSettings()).state_dict(), 11)


class Code:
    """What a checkpoint must never hold: it makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_keys_lose_what_they_share_in_front_and_swin_ones_get_their_backbone():
    value = torch.zeros(1)
    theirs = ("module.swinViT.a", "module.encoder10.b", "module.decoder1.c", "module.GAP.0.weight")
    expected = ["backbone.swinViT.a", "backbone.encoder10.b", "backbone.decoder1.c", "GAP.0.weight"]
    assert list(our_keys(dict.fromkeys(theirs, value))) == expected
    assert list(our_keys(dict.fromkeys(("module.backbone.down_tr64.x", "module.GAP.0.y"), value))) == [
        "backbone.down_tr64.x",
        "GAP.0.y",
    ]
    ours = ("backbone.down_tr64.x", "GAP.0.y")  # saved without a wrapper
    assert list(our_keys(dict.fromkeys(ours, value))) == list(ours)


def test_a_converted_file_gives_the_same_logits_and_says_what_it_is(tmp_path, state):
    metadata = convert(authors_file(tmp_path / "a.pth", state), "tiny", tmp_path / "b.safetensors", EXTRA)
    model, found = load_model(tmp_path / "b.safetensors")
    assert found == metadata == read_metadata(tmp_path / "b.safetensors")
    assert found.model.classes == PUBLISHED_CLASSES == class_names()[:32]
    assert (found.encoder, found.prompt) == (PUBLISHED_ENCODER, "V1")
    assert torch.equal(model.organ_embedding, state["organ_embedding"])
    expected = build_model(ModelSettings()).eval()
    expected.load_state_dict(state)
    x = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model(x), expected(x))


def test_the_licence_is_kept_by_what_is_trained_from_the_file(tmp_path, state):
    begin = tmp_path / "b.safetensors"
    settings = convert(authors_file(tmp_path / "a.pth", state), "tiny", begin, EXTRA).model
    _, metadata = begin_model(settings, TrainSettings(), begin, None, None, {}, {"mlflow_run_id": "1"})
    assert metadata.extra == {**EXTRA, "mlflow_run_id": "1"}


def test_the_licence_is_said():
    notice = licence_notice("models:/universal/1", EXTRA)
    assert notice.startswith("models:/universal/1: licence CC BY-NC-ND 4.0, non-commercial use only")
    assert "Liu et al." in notice
    assert licence_notice("models:/universal/2", {"mlflow_run_id": "1"}) is None


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_named_and_not_run(tmp_path, zipped):
    path, trace = tmp_path / "evil.pth", tmp_path / "run"
    torch.save({"net": {}, "epoch": Code(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pth: found posix\.mkdir, code that runs.*save the weights alone"):
        convert(path, "tiny", tmp_path / "b.safetensors", EXTRA)
    assert not trace.exists()
    assert not (tmp_path / "b.safetensors").exists()


def test_a_bare_pickle_with_code_is_not_run_either(tmp_path):
    path, trace = tmp_path / "evil.pth", tmp_path / "run"
    path.write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(ValueError, match=r"evil\.pth"):
        convert(path, "tiny", tmp_path / "b.safetensors", EXTRA)
    assert not trace.exists()


def test_torn_foreign_and_missing_files_are_told(tmp_path, state):
    whole = authors_file(tmp_path / "a.pth", state).read_bytes()
    for content in (whole[:-200], whole[: len(whole) // 2], b"hello world" * 20, b"\x80\x02garbage", b""):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.pth: not a .*file of torch\.save.*download it again"):
            convert(tmp_path / "bad.pth", "tiny", tmp_path / "b.safetensors", EXTRA)
    torch.save({"epoch": 3, "model": {}}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="found epoch, model, expected the network's weights under `net`"):
        convert(tmp_path / "bad.pth", "tiny", tmp_path / "b.safetensors", EXTRA)
    torch.save([1, 2], tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="found list, expected a dict"):
        convert(tmp_path / "bad.pth", "tiny", tmp_path / "b.safetensors", EXTRA)
    with pytest.raises(FileNotFoundError, match="no such file"):
        convert(tmp_path / "nowhere.pth", "tiny", tmp_path / "b.safetensors", EXTRA)


def test_every_misfit_weight_is_listed_at_once(tmp_path, state):
    broken = {**state, "extra.weight": torch.zeros(1), "controller.bias": torch.zeros(7)}
    del broken["GAP.3.bias"]
    with pytest.raises(ValueError, match="weights do not fit") as error:
        convert(authors_file(tmp_path / "a.pth", broken), "tiny", tmp_path / "b.safetensors", EXTRA)
    for part in ("missing GAP.3.bias", "unexpected extra.weight", "controller.bias (7,), expected (153,)"):
        assert part in str(error.value)
    assert not (tmp_path / "b.safetensors").exists()


def test_another_network_than_the_one_named_is_told(tmp_path, state):
    path = authors_file(tmp_path / "a.pth", state)
    with pytest.raises(ValueError, match="holds the weights of tiny, not of unet; use --backbone tiny"):
        convert(path, "unet", tmp_path / "b.safetensors", EXTRA)
    with pytest.raises(KeyError, match="nearest: swinunetr"):
        convert(path, "swin_unetr", tmp_path / "b.safetensors", EXTRA)


def test_another_number_of_classes_is_refused(tmp_path, state):
    fewer = {**state, "organ_embedding": state["organ_embedding"][:31]}
    path = authors_file(tmp_path / "a.pth", fewer)
    with pytest.raises(ValueError, match=r"31 classes, expected 32 \(spleen to kidney_cyst\).*--classes"):
        convert(path, "tiny", tmp_path / "b.safetensors", EXTRA)
    metadata = convert(path, "tiny", tmp_path / "b.safetensors", EXTRA, PUBLISHED_CLASSES[:31])
    assert metadata.model.classes == PUBLISHED_CLASSES[:31]
    narrow = {**state, "organ_embedding": state["organ_embedding"][:, :256]}
    with pytest.raises(ValueError, match=r"organ_embedding \(32, 256\), expected \(32, 512\)"):
        convert(authors_file(tmp_path / "a.pth", narrow), "tiny", tmp_path / "c.safetensors", EXTRA)


def test_another_order_of_classes_is_refused_and_can_be_stated(tmp_path, state):
    swapped = [*PUBLISHED_CLASSES[:22], PUBLISHED_CLASSES[23], PUBLISHED_CLASSES[22], *PUBLISHED_CLASSES[24:]]
    path = authors_file(tmp_path / "a.pth", state, classes=swapped)
    with pytest.raises(ValueError, match="from output 23 on: found right_head_of_femur, left_head_of_femur"):
        convert(path, "tiny", tmp_path / "b.safetensors", EXTRA)
    metadata = convert(path, "tiny", tmp_path / "b.safetensors", EXTRA, swapped)
    assert metadata.model.channels[22:24] == (23, 22)
    with pytest.raises(KeyError, match="'livver'; nearest: liver"):
        convert(path, "tiny", tmp_path / "c.safetensors", EXTRA, ["livver", *PUBLISHED_CLASSES[1:]])


def test_rows_of_the_two_sides_that_are_apart_put_the_order_in_doubt():
    names = ("liver", "right_kidney", "left_kidney", "right_lung")
    rows = np.zeros((4, 512), np.float32)
    rows[[0, 1, 2, 3], [0, 1, 1, 2]] = 1
    rows[2, 3] = 0.5
    assert sides_apart(names, rows) == []  # the lung has no partner here
    assert sides_apart(names, rows[[1, 0, 2, 3]]) == ["right_kidney", "left_kidney"]
