"""DICOM segmentations: each kind, sparse and shuffled frames, overlaps, turned planes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_label_files import Frame, write_seg
from dicom_samples import edit, write
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import linear_scan, oriented_affine
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless

from imaging.dicom import read_series
from imaging.dicom_seg import place_segment, read_segmentation
from imaging.errors import BadInput
from imaging.volume import Volume

SHAPE = (6, 5, 4)
AFFINE = oriented_affine((0.8, 0.9, 5.0), (20.0, 30.0, -100.0), signs=(-1.0, -1.0, 1.0))
RNG = np.random.default_rng(4)
LIVER, SPLEEN = (RNG.random(SHAPE) > 0.6 for _ in range(2))
LIVER[:, :, 2] = False


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write(tmp_path / "ct", linear_scan(SHAPE, AFFINE, np.int16))


def frames_of(number: int | None, mask: NDArray[Any], slices: tuple[int, ...]) -> list[Frame]:
    return [Frame(number, mask[:, :, k].T, k) for k in slices]


def written(
    path: Path, frames: list[Frame], series: list[Path], kind: str = "BINARY", image: Volume | None = None
) -> Path:
    image = image or read_series(series)
    return write_seg(path, kind, {1: "Liver", 2: "Mustermann"}, frames, image, series[0])


def masks(path: Path, image: Volume, **options: Any) -> list[NDArray[np.bool_]]:
    return [place_segment(one, image, "case", **options).array for one in read_segmentation(path)]


def refusal(path: Path, image: Volume, **options: Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        masks(path, image, **options)
    return caught.value


def test_sparse_shuffled_and_overlapping_binary_frames(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    frames = [*frames_of(2, SPLEEN, (3, 0)), *frames_of(1, LIVER, (1, 3, 0)), *frames_of(2, SPLEEN, (1, 2))]
    path = written(tmp_path / "seg.dcm", frames, series)
    liver, spleen = masks(path, image)
    assert np.array_equal(liver, LIVER)
    assert np.array_equal(spleen, SPLEEN)
    assert (liver & spleen).any()
    segments = read_segmentation(path)
    assert [(one.number, one.label) for one in segments] == [(1, "Liver"), (2, "Mustermann")]
    assert "Mustermann" not in repr(segments)


def test_fractional_is_inside_from_half_of_its_maximum(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[0, 0, 1], values[1, 0, 1], values[2, 0, 1] = 99, 100, 200  # of 200
    path = written(tmp_path / "seg.dcm", frames_of(1, values, (1,)), series, "FRACTIONAL")
    placed = place_segment(read_segmentation(path)[0], image, "case")
    assert np.argwhere(placed.array).tolist() == [[1, 0, 1], [2, 0, 1]]
    assert placed.steps[0].as_json() == '{"share": 0.5, "step": "threshold_fractional"}'


def test_labelmap_frames_hold_several_segments(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    values = np.where(LIVER, 1, np.where(SPLEEN, 2, 0)).astype(np.uint8)
    path = written(tmp_path / "seg.dcm", frames_of(None, values, (2, 0, 3, 1)), series, "LABELMAP")
    liver, spleen = masks(path, image)
    assert np.array_equal(liver, LIVER)
    assert np.array_equal(spleen, SPLEEN & ~LIVER)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_frames_of_another_orientation_find_their_voxels(
    tmp_path: Path, series: list[Path], axes: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    image = read_series(series)
    affine, mask = image.affine.copy(), LIVER
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
            affine[:3, axis] *= -1
            mask = np.flip(mask, axis)
    turned = Volume(mask.transpose(axes), affine[:, [*axes, 3]])
    frames = frames_of(1, turned.array, tuple(range(turned.shape[2])))
    (liver, empty) = masks(written(tmp_path / "seg.dcm", frames, series, image=turned), image)
    assert np.array_equal(liver, LIVER)
    assert not empty.any()


def test_shift_below_a_hundredth_of_a_millimetre_is_rounding(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    for shift, accepted in ((0.006, True), (0.02, False)):
        moved = image.affine.copy()
        moved[2, 3] += shift
        path = written(tmp_path / "seg.dcm", frames_of(1, LIVER, (0, 1)), series, image=Volume(image.array, moved))
        if accepted:
            placed = place_segment(read_segmentation(path)[0], image, "case")
            assert np.array_equal(placed.array[:, :, :2], LIVER[:, :, :2])
            assert placed.steps[0].as_json() == '{"farthest_mm": 0.006, "step": "round_grid"}'
        else:
            found = refusal(path, image)
            assert found.code == "label_shift"
            assert "[0.0, 0.0, 0.02] mm" in found.found


def test_frames_between_slices_and_of_other_spacing_are_refused(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    between = image.affine.copy()
    between[2, 3] += 2.5
    path = written(tmp_path / "a.dcm", frames_of(1, LIVER, (0,)), series, image=Volume(image.array, between))
    assert "2.5] mm" in refusal(path, image).found
    wider = image.affine @ np.diag([1.25, 1.0, 1.0, 1.0])
    path = written(tmp_path / "b.dcm", frames_of(1, LIVER | True, (0,)), series, image=Volume(image.array, wider))
    found = refusal(path, image)
    assert (found.code, "spacing [1.0, 0.9]" in found.found) == ("label_shift", True)


def test_foreground_outside_the_image_is_refused_and_background_is_not(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    larger = Volume(np.zeros((8, 5, 4)), image.affine)
    mask = np.zeros(larger.shape, dtype=bool)
    mask[5, 2, 1] = True
    (liver, _) = masks(written(tmp_path / "a.dcm", frames_of(1, mask, (1,)), series, image=larger), image)
    assert np.argwhere(liver).tolist() == [[5, 2, 1]]
    mask[6:, 2, 1] = True
    found = refusal(written(tmp_path / "b.dcm", frames_of(1, mask, (1,)), series, image=larger), image)
    assert (found.code, found.found) == ("label_outside", "2 pixels of a frame outside the image")


def test_other_frame_of_reference_is_refused(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    path = written(tmp_path / "seg.dcm", frames_of(1, LIVER, (0,)), series)
    assert refusal(path, image, image_frame_uid="1.2.3").code == "frame_of_reference"
    frame = pydicom.dcmread(series[0]).FrameOfReferenceUID
    assert masks(path, image, image_frame_uid=frame)[0].any()


def test_two_frames_at_one_place_must_agree(tmp_path: Path, series: list[Path]) -> None:
    image = read_series(series)
    same = written(tmp_path / "a.dcm", [*frames_of(1, LIVER, (0, 1)), *frames_of(1, LIVER, (0,))], series)
    assert masks(same, image)[0][:, :, 0].any()
    unlike = written(tmp_path / "b.dcm", [*frames_of(1, LIVER, (0, 1)), *frames_of(1, SPLEEN, (0,))], series)
    assert refusal(unlike, image).found == "two unlike frames at slice 0"


def _delete_position(data: Any) -> None:
    del data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_delete_position, "no usable ImagePositionPatient"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "NumberOfFrames 2 and 1 items"),
        (lambda d: delattr(d, "SegmentSequence"), "no SegmentSequence"),
        (lambda d: setattr(d.SegmentSequence[0], "SegmentNumber", 5), "segment 1"),
        (lambda d: setattr(d, "SegmentationType", "WHATEVER"), "WHATEVER"),
        (lambda d: setattr(d, "Modality", "CT"), "Modality CT"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:2]), "do not decode"),
    ],
)
def test_broken_segmentation_is_refused(tmp_path: Path, series: list[Path], spoil: Any, said: str) -> None:
    path = written(tmp_path / "seg.dcm", frames_of(1, LIVER, (0, 1)), series)
    edit(path, spoil)
    assert said in refusal(path, read_series(series)).found


def test_truncated_segmentation_is_refused(tmp_path: Path, series: list[Path]) -> None:
    path = written(tmp_path / "seg.dcm", frames_of(1, LIVER, (0, 1)), series)
    whole = path.read_bytes()
    for left in (len(whole) - 4, len(whole) // 2, 140):
        path.write_bytes(whole[:left])
        with pytest.raises(BadInput):
            read_segmentation(path)


def description(number: int, label: str) -> Any:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Kidney,
        algorithm_type="MANUAL",
    )


@settings(max_examples=12, deadline=None)
@given(
    st.permutations(range(4)),
    st.sampled_from(["BINARY", "FRACTIONAL", "LABELMAP"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_what_highdicom_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], kind: str, sparse: bool, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("seg")
    paths = write(folder, linear_scan(SHAPE, AFFINE, np.int16))
    image = read_series(paths)
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, SHAPE).astype(np.uint8)
    label[:, :, order[0]] = 0  # an empty slice, which sparse files leave out
    seg = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(paths[k]) for k in order],
        pixel_array=np.stack([label[:, :, k].T for k in order]),  # (frames, rows, columns)
        segmentation_type=kind,
        segment_descriptions=[description(1, "a"), description(2, "b")],
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=sparse,
        **({"transfer_syntax_uid": RLELossless} if kind != "BINARY" else {}),
    )
    seg.save_as(folder / "seg.dcm")
    frame = pydicom.dcmread(paths[0]).FrameOfReferenceUID
    one, two = masks(folder / "seg.dcm", image, image_frame_uid=frame)
    assert np.array_equal(one, label == 1)
    assert np.array_equal(two, label == 2)
    assert read_segmentation(folder / "seg.dcm")[0].meaning == "Kidney"
