"""The volume itself: geometry it refuses and what it records."""

from __future__ import annotations

import numpy as np
import pytest
from imaging_samples import oriented_affine

from imaging.errors import BadInput
from imaging.volume import Volume


def test_spacing_volume_and_world_position_by_hand() -> None:
    affine = oriented_affine((2.0, 3.0, 5.0), (10.0, 20.0, 30.0), order=(2, 0, 1), signs=(-1.0, 1.0, 1.0))
    volume = Volume(np.zeros((4, 5, 6)), affine)
    assert volume.spacing_mm == (2.0, 3.0, 5.0)
    assert volume.voxel_ml == pytest.approx(0.03)
    # i runs against z in 2 mm, j along x in 3 mm, k along y in 5 mm
    assert volume.world_mm(np.array([[1, 2, 3]])).tolist() == [[16.0, 35.0, 28.0]]


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)])
def test_bad_affine_is_refused(affine: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    with pytest.raises(BadInput, match="affine"):
        Volume(np.zeros((2, 2, 2)), affine)


def test_four_axes_are_refused() -> None:
    with pytest.raises(BadInput, match=r"shape \(2, 2, 2, 3\)"):
        Volume(np.zeros((2, 2, 2, 3)), np.eye(4))


def test_steps_are_kept_in_order_and_read_as_json() -> None:
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4)).with_step("a", b=1).with_step("c")
    assert [step.as_json() for step in volume.steps] == ['{"b": 1, "step": "a"}', '{"step": "c"}']
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) does not fit"):
        volume.with_array(np.zeros((1, 2, 2)))


def test_bad_input_says_the_same_as_sentence_and_record() -> None:
    error = BadInput("code", "set/case", "1", "2", "do it again")
    assert str(error) == "set/case: found 1, expected 2; do it again"
    assert error.record() == {
        "code": "code",
        "where": "set/case",
        "found": "1",
        "expected": "2",
        "remedy": "do it again",
    }
