"""Fingerprints: the figures of a slice, what leaves them alone, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from imaging.fingerprint import FEATURES, MIN_SLICES, decode, encode, slice_profile
from imaging.volume import Volume

AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def body(seed: int, slices: int = 20) -> Volume:
    """A trunk of fat and muscle with a spine, both drifting from slice to slice; air all round by 6 voxels."""
    rng = np.random.default_rng(seed)
    x, y = np.ogrid[:48, :40]
    array = np.full((48, 40, slices), -1000, dtype=np.int16)
    for z in range(slices):
        wide, deep = 14 + 3 * np.sin(z / 3 + seed), 10 + 2 * np.cos(z / 4)
        inside = ((x - 24) / wide) ** 2 + ((y - 20) / deep) ** 2
        array[:, :, z][inside < 1] = -90
        array[:, :, z][inside < 0.6] = 50
        array[22:26, 14 : 17 + z % 3, z] = 700
    noise = rng.normal(0, 8, array.shape) * (array > -500)
    return Volume((array + noise).astype(np.int16), AFFINE)


def profile_of(image: Volume) -> np.ndarray:
    profile = slice_profile(image)
    assert profile is not None
    return profile


def test_figures_of_a_block_are_those_worked_out_by_hand() -> None:
    array = np.full((30, 20, 8), -1000, dtype=np.int16)
    array[4:12, 3:19] = 1000  # 8 x 16 voxels above every ramp
    figures = profile_of(Volume(array, AFFINE))[3]
    # spread of a row of n is (n^2 - 1) / 12: 5.25 and 21.25, so 26.5 in all and a stretch of 16 / 26.5
    radius, stretch = np.sqrt(26.5 / 128), 16 / 26.5
    expected = [7, 4, 8, 4 * radius, 4 * stretch, 4 * radius, 4 * radius, 2 * stretch, 0, 0]
    assert figures == pytest.approx(expected, abs=1e-4)


def test_each_ramp_counts_by_parts_and_centres_move_apart() -> None:
    array = np.full((30, 20, 8), -1000, dtype=np.int16)
    array[4:12, 3:11] = -60  # half of the first ramp, none of the others
    array[14:18, 3:11] = 20  # all of the first, half of the second
    figures = profile_of(Volume(array, AFFINE))[0]
    mass = 64 * 0.5 + 32
    assert figures[0] == pytest.approx(np.log2(mass))
    assert figures[1] == pytest.approx(4 * 16 / mass)
    assert figures[2] == 0
    # x centres: fat and water (7.5 * 32 + 15.5 * 32) / 64 = 11.5, water alone 15.5; y alike
    assert figures[8] == pytest.approx(8 * 4 / np.sqrt(mass), abs=1e-4)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2)])
@pytest.mark.parametrize("turn", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_turns_within_the_slice_change_nothing(turn: tuple[int, int], axes: tuple[int, int, int]) -> None:
    image = body(1)
    turned = image.array[:: turn[0], :: turn[1]].transpose(axes)
    np.testing.assert_allclose(profile_of(Volume(turned, np.eye(4))), profile_of(image), atol=1e-3)


def test_spacing_type_window_and_air_around_the_body_do_not_count() -> None:
    image = body(2)
    whole = profile_of(image)
    assert np.array_equal(profile_of(Volume(image.array, np.eye(4))), whole)
    assert np.array_equal(profile_of(Volume(image.array.astype(np.float64), AFFINE)), whole)
    assert np.array_equal(profile_of(image.with_array(np.clip(image.array, -100, 200))), whole)
    cropped = image.array[5:-5, 6:-4, 3:-2]
    np.testing.assert_allclose(profile_of(Volume(cropped, AFFINE)), whole[3:-2], atol=1e-3)


def test_slices_turned_upside_down_are_the_profile_backwards() -> None:
    image = body(3)
    assert np.array_equal(profile_of(image.with_array(image.array[:, :, ::-1])), profile_of(image)[::-1])


def test_a_scan_of_few_slices_or_of_air_has_none() -> None:
    image = body(4)
    assert slice_profile(Volume(image.array[:, :, : MIN_SLICES - 1], AFFINE)) is None
    assert slice_profile(Volume(image.array[:, :, :MIN_SLICES], AFFINE)) is not None
    assert slice_profile(Volume(np.full((20, 20, 20), -1000, dtype=np.int16), AFFINE)) is None


def test_empty_slices_are_rows_of_zeros() -> None:
    image = body(5)
    image.array[:, :, :4] = -1000
    profile = profile_of(image)
    assert not profile[:4].any()
    assert (profile[4:, 0] > 0).all()


def test_text_gives_the_profile_back_to_three_digits() -> None:
    profile = profile_of(body(6))
    again = decode(encode(profile))
    assert again is not None
    assert again.shape == (20, FEATURES)
    np.testing.assert_allclose(again, profile, rtol=1e-3, atol=1e-4)


def test_text_of_another_version_is_nothing_and_torn_text_an_error() -> None:
    text = encode(profile_of(body(7)))
    assert decode("Ag==" if text[:2] != "Ag" else "AQ==") is None
    with pytest.raises(ValueError, match="multiple of 20"):
        decode(text[:40])
