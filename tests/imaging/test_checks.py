"""What is refused or repaired before a volume is trusted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import ORIENTATIONS, oriented_affine, step_names
from numpy.typing import NDArray

from imaging.checks import check_hu, check_label_values, clear_padding, match_grid
from imaging.errors import BadInput
from imaging.resample import orient_ras
from imaging.volume import Volume

AFFINE = oriented_affine((0.8, 0.9, 2.5), (-31.5, 12.25, -400.0), signs=(-1.0, -1.0, 1.0))


def scan(fat: float = 0.3) -> NDArray[np.int16]:
    """Half air, the rest fat, soft tissue and a little bone."""
    rng = np.random.default_rng(0)
    hu = rng.normal(40, 15, (20, 20, 10))
    hu[:10] = rng.normal(-1000, 8, (10, 20, 10))
    hu[10 : 10 + int(10 * fat)] = rng.normal(-100, 10, (int(10 * fat), 20, 10))
    hu[19, :6] = 900
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def refused_hu(array: NDArray[np.generic]) -> BadInput:
    with pytest.raises(BadInput) as caught:
        check_hu(Volume(array, AFFINE), "set/case")
    return caught.value


def test_true_hu_pass() -> None:
    check_hu(Volume(scan(), AFFINE), "set/case")
    check_hu(Volume(scan().astype(np.float32), AFFINE), "set/case")
    inside = scan()[10:]  # a crop without any air
    check_hu(Volume(inside, AFFINE), "set/case")
    padded = scan()
    padded[0] = -3024
    check_hu(Volume(padded, AFFINE), "set/case")


def test_shift_by_1024_is_refused_with_the_range() -> None:
    found = refused_hu(scan().astype(np.int32) + 1024)
    assert found.code == "hu_shifted"
    assert "to 1924" in found.found
    assert "-1024..3071" in found.expected
    assert refused_hu(scan()[10:].astype(np.int32) + 1024).code == "hu_shifted"


def test_negative_hu_wrapped_to_uint16_are_refused() -> None:
    found = refused_hu(scan().astype(np.uint16))
    assert found.code == "hu_wrapped"
    assert "65" in found.found


@pytest.mark.parametrize("kind", ["unit", "z_score", "eight_bit"])
def test_normalised_values_are_refused(kind: str) -> None:
    hu = scan().astype(np.float32)
    made = {
        "unit": np.clip((hu + 175) / 425, 0, 1),
        "z_score": (hu - hu.mean()) / hu.std(),
        "eight_bit": np.clip((hu + 175) / 425, 0, 1) * 255,
    }
    assert refused_hu(made[kind]).code == "hu_normalised"


def test_constant_is_refused_with_its_value() -> None:
    found = refused_hu(np.full((3, 3, 3), -1024, dtype=np.int16))
    assert (found.code, found.found) == ("hu_constant", "the constant -1024")


def test_padding_is_cleared_and_counted() -> None:
    array = scan()
    array[0, 0, :3] = -3024
    cleared = clear_padding(Volume(array, AFFINE))
    assert cleared.array.min() == -1024
    assert cleared.array.dtype == np.int16
    assert cleared.steps[0].parameters == {"voxels": 3, "lowest": -3024.0}
    assert clear_padding(cleared) is cleared


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS))
def test_label_stored_in_any_axis_order_is_laid_onto_its_image(
    one: tuple[tuple[int, ...], tuple[float, ...]], other: tuple[tuple[int, ...], tuple[float, ...]]
) -> None:
    # one RAS truth, stored twice: the image in one axis order, the label in another
    truth = Volume(np.arange(60).reshape(3, 4, 5), np.diag([0.8, 0.9, 2.5, 1.0]))
    image, label = stored_as(truth, *one), stored_as(truth, *other)
    placed = match_grid(image, label, "set/case")
    assert np.array_equal(placed.array, image.array)
    assert np.allclose(placed.affine, image.affine)
    assert "round_grid" not in step_names(placed)


def stored_as(truth: Volume, order: tuple[int, ...], signs: tuple[float, ...]) -> Volume:
    """The same RAS volume with its axes in another order and direction."""
    array, affine = truth.array.transpose(order), truth.affine[:, [*order, 3]]
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine = affine.copy()
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    volume = Volume(array, affine)
    assert np.array_equal(orient_ras(volume).array, truth.array)
    return volume


def test_rounding_of_the_header_is_repaired_with_its_size() -> None:
    image = Volume(np.zeros((3, 4, 5)), AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 0.004
    placed = match_grid(image, Volume(np.zeros((3, 4, 5)), moved), "set/case")
    assert np.array_equal(placed.affine, AFFINE)
    assert placed.steps[0].parameters["farthest_mm"] == pytest.approx(0.004)


def test_shifted_label_is_refused_with_both_places_and_the_shift() -> None:
    image = Volume(np.zeros((3, 4, 5)), AFFINE)
    moved = AFFINE.copy()
    moved[:3, 3] += (0.0, 0.0, 2.5)
    with pytest.raises(BadInput) as caught:
        match_grid(image, Volume(np.zeros((3, 4, 5)), moved), "set/case")
    found = caught.value
    assert found.code == "label_shift"
    assert "-397.5" in found.found
    assert "(0, 0, 2.5) mm" in found.found
    assert "2.500 mm at the farthest" in found.found
    assert "-400" in found.expected


def test_label_of_other_shape_or_spacing_is_refused() -> None:
    image = Volume(np.zeros((3, 4, 5)), AFFINE)
    with pytest.raises(BadInput, match=r"label of shape \(3, 4, 6\).*image's shape \(3, 4, 5\)") as caught:
        match_grid(image, Volume(np.zeros((3, 4, 6)), AFFINE), "set/case")
    assert caught.value.code == "label_shape"
    with pytest.raises(BadInput, match="mm at the farthest"):
        match_grid(image, Volume(np.zeros((3, 4, 5)), AFFINE @ np.diag([1, 1, 1.01, 1])), "set/case")


def label_of(values: list[float], dtype: str) -> Volume:
    return Volume(np.array(values, dtype=dtype).reshape(-1, 1, 1), AFFINE)


def test_declared_values_pass_and_take_the_smallest_type() -> None:
    assert check_label_values(label_of([0, 1, 2], "int64"), {1, 2}, "c").array.dtype == np.uint8
    assert check_label_values(label_of([0, 300], "uint16"), {300}, "c").array.dtype == np.uint16
    assert check_label_values(label_of([0, 1], "float64"), {1}, "c").steps == ()
    assert check_label_values(label_of([0, -1], "int16"), {-1}, "c").array.ravel().tolist() == [0, -1]
    assert check_label_values(label_of([0, 0], "uint8"), set(), "c").array.sum() == 0


def test_undeclared_value_is_refused_with_count_and_map() -> None:
    with pytest.raises(BadInput) as caught:
        check_label_values(label_of([0, 17, 17, 1], "uint8"), {1: "spleen", 2: "liver"}, "amos/0042")
    assert str(caught.value).startswith(
        "amos/0042: found label value 17 in 2 voxels, expected 0 or one of 1 (spleen), 2 (liver);"
    )


def test_nearly_whole_floats_are_rounded_and_noted() -> None:
    fixed = check_label_values(label_of([0, 0.9999, 2.0], "float32"), {1, 2}, "c")
    assert fixed.array.ravel().tolist() == [0, 1, 2]
    assert fixed.steps[0].parameters["largest_rounding"] == pytest.approx(1e-4, rel=0.01)


def test_interpolated_label_is_refused_with_its_share() -> None:
    with pytest.raises(
        BadInput, match=r"1 voxels \(25.0%\) without an integer value, such as 0.37 at index \(2, 0, 0\)"
    ):
        check_label_values(label_of([0, 1, 0.37, 1], "float32"), {1}, "c")
    with pytest.raises(BadInput, match="without an integer value"):
        check_label_values(label_of([0, float("nan")], "float32"), {1}, "c")
