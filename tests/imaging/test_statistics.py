"""One pass gives the same figures as asking for each by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imaging.bits import pack
from imaging.components import mask_statistics
from imaging.statistics import channel_statistics, hu_statistics
from imaging.volume import Volume


def test_hu_statistics_by_hand() -> None:
    # ranks of 1, 50 and 99 % among 0..4 are 0.04, 2 and 3.96
    found = hu_statistics(np.array([[30, -1000], [40, 0], [50, -1000]], dtype=np.int16)[:, :1].repeat(1, 1))
    assert (found.lowest, found.highest, found.mean) == (30, 50, 40)
    five = hu_statistics(np.array([40, -1000, 30, -1000, 0], dtype=np.int16))
    assert (five.lowest, five.highest, five.mean) == (-1000, 40, -386)
    assert (five.p01, five.p50) == (-1000, 0)
    assert five.p99 == pytest.approx(30 + 0.96 * 10)


@given(arrays(np.int16, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(-1024, 3071)), st.booleans())
def test_hu_statistics_are_those_of_numpy(array: np.ndarray, turned: bool) -> None:
    found = hu_statistics(array.T if turned else array)
    expected = np.percentile(array, [1, 50, 99])
    np.testing.assert_allclose([found.p01, found.p50, found.p99], expected, atol=1e-9)
    assert (found.lowest, found.highest) == (array.min(), array.max())
    assert found.mean == pytest.approx(array.mean(dtype=np.float64))


def test_hu_statistics_need_a_voxel() -> None:
    with pytest.raises(ValueError, match=r"shape \(0, 2\)"):
        hu_statistics(np.zeros((0, 2), dtype=np.int16))


@given(arrays(bool, st.tuples(st.just(33), *[st.integers(1, 4)] * 3)))
def test_channels_have_the_figures_of_their_masks(masks: np.ndarray) -> None:
    affine = np.array([[0.8, 0, 0, 5], [0, 1.5, 0, -7], [0, 0, 2.5, 9], [0, 0, 0, 1.0]])
    hu = np.arange(masks[0].size, dtype=np.int16).reshape(masks[0].shape)
    found = channel_statistics(pack(masks), Volume(hu, affine), {0: 3, 32: 4}, sample=2)
    for channel, seed in ((0, 3), (32, 4)):
        expected = mask_statistics(masks[channel], affine, sample=2, seed=seed)
        for name, value in vars(expected).items():
            if name != "hu_mean":
                np.testing.assert_array_equal(
                    np.asarray(getattr(found[channel], name)), np.asarray(value), err_msg=name
                )
        if masks[channel].any():
            assert found[channel].hu_mean == pytest.approx(hu[masks[channel]].mean())
        else:
            assert found[channel].hu_mean is None
