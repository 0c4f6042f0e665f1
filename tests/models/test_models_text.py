"""Text encoders, prompts and the embedding cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from datasets_registry.taxonomy import class_names
from models.text import (
    PROMPTS,
    PUBLISHED_ENCODER,
    HashingTextEncoder,
    OpenClipTextEncoder,
    array_digest,
    class_texts,
    embed_classes,
    embed_titles,
    same_encoder,
    text_encoder,
)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_prompts_speak_of_titles():
    assert class_texts("V1", ["right_kidney"]) == ["A computerized tomography of a right kidney."]
    assert class_texts("V4", ["liver"]) == ["A photo of a liver."]
    assert [class_texts(prompt, ["aorta"]) for prompt in PROMPTS] == [
        ["A computerized tomography of a aorta."],  # the paper's article is always "a"
        ["There is aorta in this computerized tomography."],
        ["This computerized tomography has a aorta."],
        ["A photo of a aorta."],
    ]
    with pytest.raises(ValueError, match="V1, V2, V3, V4"):
        class_texts("V9", ["liver"])
    with pytest.raises(KeyError, match="nearest: liver"):
        class_texts("V1", ["livver"])


def test_hashing_is_deterministic_and_near_for_related_names():
    encoder = HashingTextEncoder()
    right, left, lung = encoder.encode(class_texts("V1", ["right_kidney", "left_kidney", "right_lung"]))
    assert right.shape == (512,)
    assert float((right**2).mean()) == pytest.approx(1.0, abs=1e-5)
    assert cosine(right, left) > cosine(left, lung) + 0.2
    assert np.array_equal(right, HashingTextEncoder().encode(class_texts("V2", ["right_kidney"]))[0])


@pytest.mark.parametrize("name", ["hashing", "one_hot", "random"])
def test_offline_encoders_tell_all_classes_apart(name):
    rows = text_encoder(name).encode(class_texts("V1", class_names()))
    assert rows.shape == (len(class_names()), 512)
    assert rows.dtype == np.float32
    assert np.linalg.matrix_rank(rows) == len(class_names())


def test_embeddings_are_cached_once_and_checked(tmp_path):
    class Counting(HashingTextEncoder):
        calls = 0

        def encode(self, texts):
            Counting.calls += 1
            return super().encode(texts)

    first = embed_classes(Counting(), "V1", ("liver", "spleen"), tmp_path)
    second = embed_classes(Counting(), "V1", ("liver", "spleen"), tmp_path)
    assert Counting.calls == 1
    assert np.array_equal(first.array, second.array)
    assert first.digest == second.digest
    assert embed_classes(Counting(), "V2", ("liver", "spleen"), tmp_path).prompt == "V2"
    assert Counting.calls == 2
    for path in tmp_path.iterdir():
        save_file({"embeddings": first.array + 1}, path, {"digest": first.digest})
    with pytest.raises(ValueError, match=r"digest .* delete the file"):
        embed_classes(Counting(), "V1", ("liver", "spleen"), tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        embed_classes(Counting(), "V1", ("liver", "spleen"), tmp_path)


def test_a_cache_file_says_what_it_holds(tmp_path):
    rows = embed_titles(HashingTextEncoder(), "V2", ["left renal vein"], tmp_path)
    (path,) = tmp_path.iterdir()
    with safe_open(path, framework="numpy") as stream:
        about = stream.metadata()
    assert about["encoder"] == "hashing-ngram-512-v1"
    assert json.loads(about["texts"]) == ["There is left renal vein in this computerized tomography."]
    assert about["digest"] == array_digest(rows)


def test_any_title_is_embedded_as_a_class_of_that_title_is():
    encoder = HashingTextEncoder()
    rows = embed_titles(encoder, "V1", ["left renal vein", "left kidney", "right lung"])
    assert np.array_equal(rows[1], embed_classes(encoder, "V1", ["left_kidney"]).array[0])
    assert cosine(rows[0], rows[1]) > cosine(rows[0], rows[2])
    assert embed_titles(encoder, "V1", []).shape == (0, 512)
    with pytest.raises(ValueError, match="one is blank"):
        embed_titles(encoder, "V1", ["liver", " "])


def test_unknown_encoder_is_named():
    with pytest.raises(ValueError, match="'bert'"):
        text_encoder("bert")
    with pytest.raises(ValueError, match="nearest: hashing"):
        text_encoder("hash")


def test_ids_of_one_set_of_weights_are_the_same_encoder():
    assert same_encoder(PUBLISHED_ENCODER, "open_clip/ViT-B-32/openai")
    assert same_encoder("hashing-ngram-512-v1", HashingTextEncoder().id)
    assert not same_encoder(PUBLISHED_ENCODER, "open_clip/ViT-B-32/laion2b_s34b_b79k")
    assert not same_encoder("hashing-ngram-512-v1", "random-512-v1")


def test_open_clip_weights_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        OpenClipTextEncoder("ViT-B-32", str(tmp_path / "weights.pt"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clip:ViT-B32:openai", "nearest: ViT-B-32.*give a file: open_clip:ViT-B32:FILE"),
        ("open_clip:ViT-B-32:opnai", "'opnai' is not a known tag.*text_encoder hashing"),
    ],
)
def test_unknown_open_clip_models_and_tags_say_what_helps(spec, message):
    with pytest.raises(RuntimeError, match=message):
        text_encoder(spec).encode(["liver"])


def test_open_clip_reads_a_local_weight_file(tmp_path):
    import open_clip

    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    }
    (tmp_path / "small-clip-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    network = open_clip.create_model("small-clip-for-tests").eval()
    weights = tmp_path / "weights.pt"
    torch.save(network.state_dict(), weights)
    encoder = text_encoder(f"open_clip:small-clip-for-tests:{weights}")
    texts = class_texts("V1", ["liver", "spleen"])
    rows = encoder.encode(texts)
    with torch.inference_mode():
        expected = network.encode_text(open_clip.get_tokenizer("small-clip-for-tests")(texts)).numpy()
    assert np.allclose(rows, expected, atol=1e-5)
    assert encoder.id.startswith("open_clip/small-clip-for-tests/")
    assert str(tmp_path) not in encoder.id
