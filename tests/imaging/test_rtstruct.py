"""Structure sets on a series: contours by slice, holes, oblique images, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_label_files import Roi, write_rtstruct
from dicom_samples import edit, write
from imaging_samples import linear_scan, oriented_affine, turned_affine

from imaging.dicom import read_series
from imaging.errors import BadInput
from imaging.rtstruct import Structure, rasterise, read_structures
from imaging.volume import Volume

AFFINE = oriented_affine((0.8, 0.9, 5.0), (20.0, 30.0, -100.0), signs=(-1.0, -1.0, 1.0))
SHAPE = (9, 8, 4)
IMAGE = Volume(np.zeros(SHAPE, dtype=np.int16), AFFINE)


def box(low: tuple[float, float], high: tuple[float, float], k: float, image: Volume = IMAGE) -> np.ndarray:
    """Corners in RAS mm of the rectangle between two voxel indices on slice index `k`."""
    index = [(low[0], low[1], k), (high[0], low[1], k), (high[0], high[1], k), (low[0], high[1], k)]
    return image.world_mm(np.array(index))


def structure(*contours: np.ndarray, **fields: Any) -> Structure:
    return Structure(1, "liver", tuple(contours), **fields)


def refusal(one: Structure, image: Volume = IMAGE, **options: str) -> BadInput:
    with pytest.raises(BadInput) as caught:
        rasterise(one, image, "case", **options)  # type: ignore[arg-type]
    return caught.value


def test_contour_fills_the_voxels_whose_centres_it_holds() -> None:
    mask = rasterise(structure(box((1.6, 2.4), (4.4, 5.6), 2)), IMAGE, "case")
    assert np.argwhere(mask.array).tolist() == [[x, y, 2] for x in (2, 3, 4) for y in (3, 4, 5)]
    assert np.array_equal(mask.affine, IMAGE.affine)
    assert mask.steps == ()


def test_nested_contours_are_holes_on_their_own_slice_only() -> None:
    outer, hole = ((-0.4, -0.4), (7.4, 6.4)), ((1.6, 1.6), (4.4, 4.4))
    one = structure(box(*outer, 1), box(*hole, 1), box(*outer, 2))
    mask = rasterise(one, IMAGE, "case").array
    assert mask.sum(axis=(0, 1)).tolist() == [0, 8 * 7 - 9, 8 * 7, 0]
    assert not mask[2:5, 2:5, 1].any()


@pytest.mark.parametrize("degrees", [0.0, 25.0])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_oblique_images_of_any_axis_order_hold_the_same_voxels(degrees: float, axes: tuple[int, int, int]) -> None:
    turned = Volume(np.zeros(SHAPE, dtype=np.int16), turned_affine((0.8, 0.9, 5.0), degrees))
    stored = Volume(turned.array.transpose(axes), turned.affine[:, [*axes, 3]])
    contours = structure(box((1.6, 2.4), (4.4, 5.6), 2, turned), box((1.6, 2.4), (2.4, 5.6), 3, turned))
    mask = rasterise(contours, stored, "case").array.transpose(np.argsort(axes))
    expected = [[x, y, 2] for x in (2, 3, 4) for y in (3, 4, 5)] + [[2, y, 3] for y in (3, 4, 5)]
    assert sorted(np.argwhere(mask).tolist()) == sorted(expected)


def test_contour_between_slices_goes_to_the_nearest_with_a_step() -> None:
    mask = rasterise(structure(box((0, 0), (3, 3), 1.4)), IMAGE, "case")
    assert np.flatnonzero(mask.array.any(axis=(0, 1))).tolist() == [1]
    assert mask.steps[0].as_json() == '{"farthest_mm": 2.0, "step": "contours_to_nearest_slice"}'
    upper = rasterise(structure(box((0, 0), (3, 3), 1.5)), IMAGE, "case")
    assert np.flatnonzero(upper.array.any(axis=(0, 1))).tolist() == [2]


def test_planes_closer_than_slices_do_not_cancel_each_other() -> None:
    ends = {1.0: 2.4, 1.3: 3.4, 1.7: 3.4, 2.0: 2.4}
    mask = rasterise(structure(*(box((-0.4, -0.4), (end, end), k) for k, end in ends.items())), IMAGE, "case")
    assert mask.array.sum(axis=(0, 1)).tolist() == [0, 9, 9, 0]
    assert mask.steps[-1].as_json() == '{"planes": 2, "step": "drop_contours_between_slices"}'


def test_slices_left_out_between_contours_stay_empty_and_are_counted() -> None:
    mask = rasterise(structure(box((0, 0), (3, 3), 0), box((0, 0), (3, 3), 3)), IMAGE, "case")
    assert mask.array.any(axis=(0, 1)).tolist() == [True, False, False, True]
    assert mask.steps[-1].as_json() == '{"slices": 2, "step": "empty_slices_between_contours"}'


def test_contour_over_the_border_is_cut_with_a_step() -> None:
    mask = rasterise(structure(box((-5, -5), (1.4, 1.4), 0)), IMAGE, "case")
    assert np.argwhere(mask.array).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert mask.steps[-1].parameters == {"contours": 1}


@pytest.mark.parametrize(("k", "beyond"), [(-0.6, "3.00 mm"), (3.8, "4.00 mm")])
def test_contour_beyond_the_end_slices_is_refused(k: float, beyond: str) -> None:
    found = refusal(structure(box((0, 0), (3, 3), k)))
    assert found.code == "label_outside"
    assert beyond in found.found


def test_contour_across_slices_is_refused() -> None:
    corners = box((0, 0), (3, 3), 1)
    corners[0, 2] += 1.0
    found = refusal(structure(corners))
    assert found.code == "contour_not_planar"
    assert "0.75 mm" in found.found  # a quarter of it moves the mean


def test_structure_in_another_frame_of_reference_is_refused() -> None:
    one = structure(box((0, 0), (3, 3), 1), frame_uid="1.2.3")
    assert refusal(one, image_frame_uid="1.2.4").code == "frame_of_reference"
    assert rasterise(one, IMAGE, "case", image_frame_uid="1.2.3").array.any()


def test_structure_without_contours_is_empty() -> None:
    assert not rasterise(structure(), IMAGE, "case").array.any()


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write(tmp_path / "ct", linear_scan(SHAPE, AFFINE, np.int16))


def test_file_is_read_back_with_points_left_out_and_counted(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    drawn = box((1.6, 2.4), (4.4, 5.6), 2)
    path = write_rtstruct(
        tmp_path / "rs.dcm",
        [
            Roi("Liver", [(drawn, "CLOSED_PLANAR"), (drawn[:1], "POINT"), (drawn[:2], "CLOSED_PLANAR")]),
            Roi("Mustermann", []),
        ],
        series[0],
    )
    liver, empty = read_structures(path)
    assert (liver.name, liver.number, len(liver.contours), liver.ignored) == ("Liver", 1, 1, 2)
    assert empty.contours == ()
    assert "Mustermann" not in repr(empty)
    frame = pydicom.dcmread(series[0]).FrameOfReferenceUID
    mask = rasterise(liver, image, "case", image_frame_uid=frame)
    assert np.argwhere(mask.array).tolist() == [[x, y, 2] for x in (2, 3, 4) for y in (3, 4, 5)]
    assert mask.steps[0].as_json() == '{"points_or_open": 2, "step": "ignore_contours"}'


def _first_contour(data: Any) -> Any:
    return data.ROIContourSequence[0].ContourSequence[0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: setattr(_first_contour(d), "ContourData", ["1", "2", "3", "4"]), "4 numbers"),
        (lambda d: setattr(_first_contour(d), "NumberOfContourPoints", 9), "NumberOfContourPoints 9"),
        (lambda d: delattr(_first_contour(d), "ContourData"), "0 numbers"),
        (lambda d: setattr(d.ROIContourSequence[0], "ReferencedROINumber", 7), "structures [7]"),
        (lambda d: setattr(d, "Modality", "RTPLAN"), "RTPLAN"),
    ],
)
def test_broken_structure_set_is_refused(tmp_path: Path, series: list[Path], spoil: Any, said: str) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", [Roi("Liver", [(box((0, 0), (3, 3), 1), "CLOSED_PLANAR")])], series[0])
    edit(path, spoil)
    with pytest.raises(BadInput) as caught:
        read_structures(path)
    assert said in caught.value.found


def test_truncated_structure_set_is_refused(tmp_path: Path, series: list[Path]) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", [Roi("Liver", [(box((0, 0), (3, 3), 1), "CLOSED_PLANAR")])], series[0])
    whole = path.read_bytes()
    for left in (len(whole) - 30, 100):
        path.write_bytes(whole[:left])
        with pytest.raises(BadInput):
            read_structures(path, where="case")
