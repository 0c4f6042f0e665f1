"""Sliding windows against the plain whole-volume form."""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from window_network import WindowNetwork, whole_volume_logits

from imaging.bits import get_channel
from models.infer import FreeText, Predictor, predict_bits
from models.infer_bits import threshold
from models.infer_network import default_precision
from models.infer_scan import ArrayScan, busy_windows, read_slabs
from models.infer_scores import NotFiniteLogits, Tally
from models.infer_windows import WindowGrid, gaussian_weight, window_starts
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


def body_in_air(shape, seed=0):
    """Noise of a body in the first half of each axis, in air with noise of its own."""
    random = np.random.default_rng(seed)
    image = random.integers(-1024, -175, shape, endpoint=True)
    body = tuple(slice(n // 4, max(n // 4 + 1, n // 2)) for n in shape)
    image[body] = random.integers(-100, 300, image[body].shape)
    return image.astype(np.int16)


def plain(network, image, chosen, overlap=0.5):
    """Return blended logits (C, X, Y, Z) of the plain form, air put around a small image."""
    widths = [
        ((max(0, p - n)) // 2, max(0, p - n) - max(0, p - n) // 2)
        for n, p in zip(image.shape, chosen.patch, strict=True)
    ]
    padded = np.pad(image.astype(np.float32), widths, constant_values=-1024)
    starts = [window_starts(n, p, overlap) for n, p in zip(padded.shape, chosen.patch, strict=True)]
    values = window_hu(padded, chosen.hu_window)
    with torch.inference_mode():
        logits = whole_volume_logits(network, values, chosen.patch, starts, gaussian_weight(chosen.patch))
    inner = tuple(slice(low, low + n) for (low, _), n in zip(widths, image.shape, strict=True))
    return logits[(slice(None), *inner)].numpy()


def masks(prediction, chosen=SETTINGS):
    return np.stack([get_channel(prediction.bits, channel) for channel in chosen.channels])


def assert_bits_equal_but_for_ties(found, logits, chosen=SETTINGS):
    clear = np.abs(logits) > 1e-4
    assert np.array_equal(masks(found, chosen)[clear], (logits > 0)[clear])
    for name, own in zip(chosen.classes, logits, strict=True):
        inside = 1 / (1 + np.exp(-own[own > 0]))
        assert found.mean_prob[name] == pytest.approx(inside.mean() if len(inside) else np.nan, abs=1e-3, nan_ok=True)


def test_one_window_equals_the_direct_forward(model):
    image = scan(SETTINGS.patch)
    with torch.inference_mode():
        logits = model(window_hu(image, SETTINGS.hu_window)[None, None])[0].numpy()
    found = predict_bits(model, SETTINGS, image)
    assert found.bits.shape == (1, *image.shape)
    assert_bits_equal_but_for_ties(found, logits)


def test_a_real_network_gives_what_blending_the_whole_volume_gives(model):
    image = body_in_air((20, 34, 30))
    assert_bits_equal_but_for_ties(predict_bits(model, SETTINGS, image, batch=3), plain(model, image, SETTINGS))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40)),
    patch=st.tuples(*[st.sampled_from([8, 10, 16])] * 3),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    batch=st.integers(1, 5),
    body=st.booleans(),
    turned=st.booleans(),
    seed=st.integers(0, 5),
)
def test_slabs_equal_the_whole_volume_whatever_the_shape(shape, patch, overlap, batch, body, turned, seed):
    chosen = ModelSettings(classes=("liver", "aorta", "spleen"), patch=patch)
    image = (body_in_air if body else scan)(shape, seed)
    network = WindowNetwork(chosen.classes)
    as_read = np.asfortranarray(image)[::-1][::-1] if turned else image  # as the lake and a flipped file give it
    found = predict_bits([network], chosen, as_read, overlap=overlap, batch=batch)
    assert_bits_equal_but_for_ties(found, plain(WindowNetwork(chosen.classes), image, chosen, overlap), chosen)


def test_the_network_sees_air_once():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    image = np.full((8, 8, 40), -1000, np.int16)
    image[3, 3, 1] = -174  # one voxel just above the lower end of the window is no air
    network = WindowNetwork(chosen.classes)
    told = []
    Predictor([network], chosen, overlap=0.0).predict(ArrayScan(image), report=told.append)
    assert len(network.seen) == 2
    assert [bool(window.any()) for window in network.seen] == [True, False]
    assert (told[-1].done, told[-1].windows, told[-1].all) == (2, 2, 5)


def test_only_planes_two_slabs_share_are_kept_and_none_is_read_twice():
    image = scan((9, 8, 30))
    grid = WindowGrid(image.shape, (8, 8, 8), 0.5)
    reads = []

    class Watched(ArrayScan):
        def read(self, box):
            reads.append(box[2])
            return super().read(box)

    slabs = list(read_slabs(Watched(image), grid))
    assert grid.axis == 2
    assert all(np.array_equal(slab, image[..., z : z + 8]) for slab, z in zip(slabs, grid.slab_starts, strict=True))
    assert sorted(z for box in reads for z in range(box.start, box.stop)) == list(range(30))
    reads.clear()
    busy_windows(Watched(image), grid, -200.0)
    assert sorted(z for box in reads for z in range(box.start, box.stop)) == list(range(30))


def test_a_window_is_busy_where_one_voxel_of_it_is_not_air():
    grid = WindowGrid((12, 8, 20), (8, 8, 8), 0.5)  # slabs at z 0, 4, 8, 12, of windows at x 0 and 4
    for place, expected in (
        ((0, 0, 0), [(1, 0), (0, 0), (0, 0), (0, 0)]),
        ((11, 7, 19), [(0, 0), (0, 0), (0, 0), (0, 1)]),
        ((5, 3, 9), [(0, 0), (1, 1), (1, 1), (0, 0)]),
    ):
        image = np.full((12, 8, 20), -200, np.int16)
        image[place] = -199
        assert busy_windows(ArrayScan(image), grid, -200.0) == [tuple(map(bool, slab)) for slab in expected]


@pytest.mark.parametrize(
    ("shape", "patch", "axis"), [((20, 20, 90), (8, 8, 8), 2), ((90, 20, 20), (8, 8, 8), 0), ((9, 9, 9), (8, 4, 8), 1)]
)
def test_slabs_follow_the_axis_that_keeps_least_in_memory(shape, patch, axis):
    grid = WindowGrid(shape, patch, 0.5)
    assert grid.axis == axis
    kept = [grid.kept(number)[1] for number in range(len(grid.slab_starts))]
    assert [part[axis].start for part in kept] + [shape[axis]] == [0] + [part[axis].stop for part in kept]


def test_finished_slabs_leave_in_order_and_hold_all_there_is():
    chosen = ModelSettings(classes=("liver", "aorta"), patch=(8, 8, 8))
    image = scan((10, 12, 33))
    predictor = Predictor([WindowNetwork(chosen.classes)], chosen)
    parts = []
    scores = predictor.stream(ArrayScan(image), lambda box, bits: parts.append((box, bits.copy())))
    whole = predictor.predict(ArrayScan(image))
    assert np.array_equal(np.concatenate([bits for _, bits in parts], axis=3), whole.bits)
    assert [box[2].start for box, _ in parts] == sorted(box[2].start for box, _ in parts)
    assert max(bits.shape[3] for _, bits in parts) <= 8
    assert scores == whole.scores


def test_logits_above_zero_become_bits_and_sums_of_probabilities():
    # two planes of three voxels, for the classes of bit 33, bit 0 and bit 31, whose word is negative
    logits = torch.tensor([
        [[-1.0, 0.0, 0.0], [0.0, -3.0, -0.1]],
        [[2.0, 0.0, -1.0], [0.5, -2.0, 1.0]],
        [[-1.0, 1.5, 0.0], [3.0, -1.0, -1.0]],
    ])[:, None]  # fmt: skip
    words, sums, counts = threshold(logits, [33, 0, 31], 2)
    assert words[0, 0].tolist() == [[1, -(2**31), 0], [1 - 2**31, 0, 1]]
    assert not words[1].any()
    # 1 / (1 + e^-2) = 0.880797 and so on: 0.622459, 0.731059; 0.817574, 0.952574
    assert sums.tolist() == pytest.approx([0, 2.234315, 1.770149], abs=1e-5)
    assert counts.tolist() == [0, 3, 2]


def test_only_classes_asked_for_are_set(model):
    image = scan(SETTINGS.patch)
    both, one = predict_bits(model, SETTINGS, image), predict_bits(model, SETTINGS, image, classes=["liver"])
    assert set(one.mean_prob) == {"liver"}
    assert np.array_equal(masks(one)[1], masks(both)[1])
    assert not masks(one)[0].any()


def test_a_free_text_gets_a_bit_behind_all_classes_and_changes_none_of_them(model):
    image = scan(SETTINGS.patch)
    text = FreeText(("the spleen, in other words",), model.organ_embedding[:1].numpy())
    found = Predictor(model, SETTINGS).predict(ArrayScan(image), ["liver"], text)
    classes_alone = predict_bits(model, SETTINGS, image)
    assert found.bits.shape[0] == 2
    assert found.scores.channels["the spleen, in other words"] == 32
    own, liver = get_channel(found.bits, 32), get_channel(found.bits, found.scores.channels["liver"])
    assert np.array_equal(np.stack([own, liver]), masks(classes_alone))  # the text has the row of the spleen


def test_an_ensemble_averages_probabilities_in_each_window():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    image = scan((8, 8, 8))
    members = [WindowNetwork(chosen.classes, shift) for shift in (-3.0, 0.2, 4.0)]
    values = window_hu(image, chosen.hu_window)[None, None]
    expected = torch.stack([member(values)[0, 0].sigmoid() for member in members]).mean(dim=0).numpy()
    found = predict_bits(members, chosen, image)
    clear = np.abs(expected - 0.5) > 1e-5
    assert np.array_equal(masks(found, chosen)[0][clear], (expected > 0.5)[clear])
    assert found.mean_prob["liver"] == pytest.approx(expected[expected > 0.5].mean(), abs=1e-4)


def test_certain_models_leave_an_ensemble_finite():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    found = predict_bits([WindowNetwork(chosen.classes, shift) for shift in (90.0, 120.0)], chosen, scan((8, 8, 8)))
    assert found.mean_prob["liver"] == 1.0


class Loud(torch.nn.Module):
    """Logits of two classes: value - 0.5, and that times 200,000, which float16 cannot hold."""

    def __init__(self, factor=2e5):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([[1.0], [factor]]).view(2, 1, 1, 1, 1))

    def forward(self, x, *_, **__):
        return torch.nn.functional.conv3d(x - 0.5, self.scale)


def test_where_float16_overflows_the_scan_is_predicted_again_in_bfloat16():
    chosen = ModelSettings(classes=("liver", "aorta"), patch=(8, 8, 8))
    image, said, slabs = scan((8, 10, 20)), [], []
    predictor = Predictor([Loud()], chosen, precision="16-mixed")
    found = predictor.predict(ArrayScan(image), say=said.append)
    assert said == ["float16 overflows for aorta; this scan is predicted again in bf16-mixed"]
    assert found.scores.remarks == tuple(said)
    assert np.array_equal(found.bits, predict_bits([Loud()], chosen, image, precision="bf16-mixed").bits)
    assert masks(found, chosen)[1].any()
    scores = predictor.stream(ArrayScan(image), lambda box, _: slabs.append(box), say=said.append)
    assert said[1:] == list(scores.remarks) == said[:1]  # each scan begins in the precision asked for
    assert slabs[: len(slabs) // 2] == slabs[len(slabs) // 2 :]


def test_a_scan_begins_in_float16_on_a_gpu_and_in_float32_on_a_cpu():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    assert [default_precision(device) for device in ("cuda:1", "cpu")] == ["16-mixed", "32-true"]
    assert Predictor([Loud()], chosen, device="cuda", batch=1).network.wanted_precision == "16-mixed"


def test_nothing_of_the_first_attempt_is_left_in_memory_for_the_second(monkeypatch):
    chosen = ModelSettings(classes=("liver", "aorta"), patch=(8, 8, 8))
    tallies = []

    def watched(*given):
        gc.collect()
        alive = [reference for reference in tallies if reference() is not None]
        tally = Tally(*given)
        tallies.append(weakref.ref(tally))
        assert not alive
        return tally

    monkeypatch.setattr("models.infer.Tally", watched)
    predict_bits([Loud()], chosen, scan((8, 8, 12)), precision="16-mixed")
    assert len(tallies) == 2


@pytest.mark.parametrize("factor", [np.inf, np.nan])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_logits_that_are_no_numbers_are_an_error_and_no_empty_mask(factor, precision):
    chosen = ModelSettings(classes=("liver", "aorta"), patch=(8, 8, 8))
    with pytest.raises(NotFiniteLogits, match=r"NaN or infinite logits in (32-true|bf16-mixed) for aorta;"):
        predict_bits([Loud(factor)], chosen, scan((8, 8, 12)), precision=precision)


def test_out_of_memory_halves_the_batch_and_says_so():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    image = scan((16, 16, 16))
    said = []
    predictor = Predictor([WindowNetwork(chosen.classes, memory={"cpu": 2})], chosen, batch=8)
    found = predictor.predict(ArrayScan(image), say=said.append)
    assert said == [
        "out of memory on cpu with 5 windows a pass; going on with 2",
    ]
    assert found.scores.remarks == tuple(said)
    assert np.array_equal(found.bits, predict_bits([WindowNetwork(chosen.classes)], chosen, image).bits)
    assert predictor.predict(ArrayScan(image)).scores.remarks == ()  # the next scan begins with what fits


def test_out_of_memory_is_logged_where_nobody_listens(caplog):
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    predict_bits([WindowNetwork(chosen.classes, memory={"cpu": 1})], chosen, scan((16, 8, 16)), batch=2)
    assert "out of memory on cpu with 2 windows a pass; going on with 1" in caplog.text


def test_a_window_that_does_not_fit_at_all_is_an_error_with_a_remedy():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    with pytest.raises(RuntimeError, match=r"one window does not fit .*no room for 1 windows.*smaller patch"):
        predict_bits([WindowNetwork(chosen.classes, memory={"cpu": 0})], chosen, scan((8, 8, 8)))


def test_other_errors_of_the_network_are_not_taken_for_want_of_memory(model):
    broken = ModelSettings(classes=("spleen", "liver"), patch=(10, 32, 16))
    with pytest.raises(ValueError, match="multiple of 16"):
        predict_bits(model, broken, scan(broken.patch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_scan_ends_on_the_cpu_where_the_gpu_has_no_room_for_one_window():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    image = scan((8, 8, 16))
    network = WindowNetwork(chosen.classes, memory={"cuda": 0})
    predictor = Predictor([network], chosen, device="cuda", precision="32-true")
    for _ in range(2):  # the next scan tries the GPU again
        found = predictor.predict(ArrayScan(image))
        assert "on the CPU, slowly" in found.scores.remarks[-1]
        assert np.array_equal(found.bits, predict_bits([WindowNetwork(chosen.classes)], chosen, image).bits)


def test_the_estimate_comes_with_the_first_windows():
    chosen = ModelSettings(classes=("liver",), patch=(8, 8, 8))
    told = []
    Predictor([WindowNetwork(chosen.classes)], chosen, batch=2).predict(ArrayScan(scan((8, 8, 40))), report=told.append)
    first, last = told[0], told[-1]
    assert (first.done, first.windows, first.all) == (2, 9, 9)
    assert first.seconds_left == pytest.approx(first.seconds * 7 / 2)
    assert last.done == 9
    assert last.seconds_left == 0
    assert first.peak_gb > 0.01
    assert first.estimate().startswith("9 windows, 2 a pass, 32-true on cpu: about 0.")


def test_bad_scans_and_requests_are_refused(model):
    image = scan(SETTINGS.patch).astype(np.float32)
    image[1, 2, 3] = np.nan
    image[4, 0, 0] = np.inf
    with pytest.raises(ValueError, match=r"2 NaN or infinite voxels, the first at \(1, 2, 3\)"):
        predict_bits(model, SETTINGS, image)
    with pytest.raises(KeyError, match="this model has no class 'aorta'"):
        predict_bits(model, SETTINGS, scan(SETTINGS.patch), classes=["aorta"])
    with pytest.raises(KeyError, match="no class 'livr'; nearest: liver; it has spleen, liver"):
        predict_bits(model, SETTINGS, scan(SETTINGS.patch), classes=["livr"])
    with pytest.raises(ValueError, match="three axes"):
        predict_bits(model, SETTINGS, scan((4, 4)))
    with pytest.raises(ValueError, match="no model"):
        predict_bits([], SETTINGS, scan(SETTINGS.patch))
    with pytest.raises(ValueError, match="batch 0"):
        predict_bits(model, SETTINGS, scan(SETTINGS.patch), batch=0)
    with pytest.raises(ValueError, match=r"precision 'fp8': expected one of 32-true"):
        predict_bits(model, SETTINGS, scan(SETTINGS.patch), precision="fp8")


@given(st.integers(1, 200), st.integers(8, 96), st.floats(0, 0.9))
def test_windows_cover_the_axis_and_overlap_enough(length, patch, overlap):
    starts = window_starts(length, patch, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - patch)
    for first, second in itertools.pairwise(starts):
        assert 0 < second - first <= max(1, int(patch * (1 - overlap)))
