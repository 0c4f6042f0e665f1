"""Sliding windows against the plain whole-volume form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imaging.bits import get_channel
from models.infer import gaussian_weight, predict_bits, window_starts
from models.sampling import window_hu
from models.settings import ModelSettings
from models.universal import build_model

SETTINGS = ModelSettings(classes=("spleen", "liver"), patch=(16, 32, 16))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(4)
    model = build_model(SETTINGS).eval()
    with torch.no_grad():
        model.controller.bias[-1] = 0.0
    return model


def scan(shape, seed=0):
    return np.random.default_rng(seed).integers(-300, 400, shape).astype(np.int16)


def logits_of(model, image):
    with torch.inference_mode():
        return model(window_hu(image, SETTINGS.hu_window)[None, None])[0]


def masks(prediction):
    return np.stack([get_channel(prediction.bits, channel) for channel in SETTINGS.channels])


def test_one_window_equals_the_direct_forward(model):
    image = scan(SETTINGS.patch)
    logits = logits_of(model, image)
    found = predict_bits(model, SETTINGS, image)
    assert found.bits.shape == (1, *image.shape)
    assert np.array_equal(masks(found), (logits > 0).numpy())
    for name, logit in zip(SETTINGS.classes, logits, strict=True):
        inside = logit.sigmoid()[logit > 0]
        expected = float(inside.mean()) if len(inside) else float("nan")
        assert found.mean_prob[name] == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_a_smaller_image_equals_the_forward_of_it_surrounded_by_air(model):
    image = scan((11, 32, 9))
    padded = np.full(SETTINGS.patch, -1024, np.int16)
    padded[2:13, :, 3:12] = image
    expected = (logits_of(model, padded) > 0).numpy()[:, 2:13, :, 3:12]
    assert np.array_equal(masks(predict_bits(model, SETTINGS, image)), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_slabs_equal_blending_the_whole_volume_at_once(model, batch):
    image = scan((37, 40, 21))
    total, weights = torch.zeros(2, *image.shape), torch.zeros(image.shape)
    weight = gaussian_weight(SETTINGS.patch)
    for start in itertools.product(
        *(window_starts(n, p, 0.5) for n, p in zip(image.shape, SETTINGS.patch, strict=True))
    ):
        box = tuple(slice(s, s + p) for s, p in zip(start, SETTINGS.patch, strict=True))
        total[(slice(None), *box)] += logits_of(model, image[box]) * weight
        weights[box] += weight
    blended = (total / weights).numpy()
    clear = np.abs(blended) > 1e-4  # ties may fall either way
    assert np.array_equal(masks(predict_bits(model, SETTINGS, image, batch=batch))[clear], (blended > 0)[clear])


def test_only_classes_asked_for_are_set(model):
    image = scan(SETTINGS.patch)
    both, one = predict_bits(model, SETTINGS, image), predict_bits(model, SETTINGS, image, classes=["liver"])
    assert set(one.mean_prob) == {"liver"}
    assert np.array_equal(masks(one)[1], masks(both)[1])
    assert not masks(one)[0].any()


def test_nan_and_unknown_classes_are_refused(model):
    image = scan(SETTINGS.patch).astype(np.float32)
    image[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"1 NaN or infinite voxels, the first at \(1, 2, 3\)"):
        predict_bits(model, SETTINGS, image)
    with pytest.raises(KeyError, match="this model has no class 'aorta'"):
        predict_bits(model, SETTINGS, scan(SETTINGS.patch), classes=["aorta"])
    with pytest.raises(ValueError, match="three axes"):
        predict_bits(model, SETTINGS, scan((4, 4)))


@given(st.integers(1, 200), st.integers(8, 96), st.floats(0, 0.9))
def test_windows_cover_the_axis_and_overlap_enough(length, patch, overlap):
    starts = window_starts(length, patch, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - patch)
    for first, second in itertools.pairwise(starts):
        assert 0 < second - first <= max(1, int(patch * (1 - overlap)))
