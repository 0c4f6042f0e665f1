"""A case's export lies where the scan lies: every orientation, oblique, tilted; and what its files say."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from catalog.keys import content_sha256
from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, empty_bits, get_channel, set_channel
from imaging.dicom import read_series, series_stack
from imaging.dicom_seg import place_segment, read_segmentation
from imaging.dicom_write import write_series
from imaging.resample import Grid, grid_for, orient_ras, resample_image
from imaging.resample_masks import BoxedField, resample_masks
from imaging.volume import Affine, Volume
from tasks.export import export_case, export_classes, original_grid
from tasks.licences import LicenceRefused

ORIENTATIONS = [(p, s) for p in permutations(range(3)) for s in product((1.0, -1.0), repeat=3)]
LAKE_MM = (3.0, 3.0, 3.0)
SHAPE = (18, 15, 9)
CLASSES = ("right_kidney", "left_kidney", "kidney_tumor")
CENTRES = {"right_kidney": (14.0, -3.0, 4.0), "left_kidney": (-13.0, 4.0, -3.0), "kidney_tumor": (16.0, -3.0, 6.0)}
WITHIN_MM = 2.0
"""Under half of the coarse axis; the smallest shift by a flip is 6 mm."""
RADII = {"right_kidney": 8.5, "left_kidney": 7.0, "kidney_tumor": 6.0}


def oriented(order: tuple[int, ...], signs: tuple[float, ...]) -> Affine:
    affine = np.zeros((4, 4))
    for axis, mm in enumerate((3.1, 3.4, 5.0)):
        affine[order[axis], axis] = signs[axis] * mm
    affine[3, 3] = 1
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def drawn(shape: tuple[int, int, int], affine: Affine) -> dict[str, NDArray[np.bool_]]:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return {name: np.linalg.norm(world - CENTRES[name], axis=-1) < RADII[name] for name in CLASSES}


def scan(affine: Affine) -> Volume:
    masks = drawn(SHAPE, affine)
    return Volume((40 * masks["right_kidney"] + 80 * masks["left_kidney"] - 50).astype(np.int16), affine)


def case_of(raw: Volume, native_id: str = "s1") -> tuple[dict[str, Any], Bits, Volume]:
    """Return a `cases` row, class bits and image on the lake's grid, as an ingest would make them."""
    grid = grid_for(raw, LAKE_MM)
    bits = empty_bits(grid.shape, 32)
    for name, mask in drawn(grid.shape, grid.affine).items():
        set_channel(bits, class_info(name).channel, mask)
    upright = orient_ras(raw)
    case = {
        "case_id": f"ward/{native_id}",
        "native_id": native_id,
        "affine": grid.affine.ravel().tolist(),
        "original_shape": list(raw.shape),
        "original_affine": raw.affine.ravel().tolist(),
        "content_sha256": content_sha256(upright.array, upright.affine),
        "licence": "CC-BY-4.0",
        "non_commercial": False,
    }
    return case, bits, resample_image(raw, grid)


def centroid(mask: NDArray[np.bool_], affine: Affine) -> NDArray[np.float64]:
    point: NDArray[np.float64] = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    return point


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_no_orientation_is_flipped_and_files_equal_the_lakes_mask_there(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[float, ...]
) -> None:
    raw = scan(oriented(order, signs))
    case, bits, _ = case_of(raw)
    export_case(case, bits, CLASSES, tmp_path, {}, formats=("nifti_per_class",))
    expected = resample_masks(bits, np.reshape(case["affine"], (4, 4)), Grid.of(raw))
    for name in CLASSES:
        read = nibabel.load(tmp_path / "s1" / "classes" / f"{name}.nii.gz")
        mask = np.asarray(read.dataobj) != 0
        assert np.allclose(read.affine, raw.affine, atol=1e-4)
        assert np.array_equal(mask, get_channel(expected, class_info(name).channel))
        assert np.linalg.norm(centroid(mask, read.affine) - CENTRES[name]) < WITHIN_MM


@pytest.mark.parametrize("degrees", [7.0, -31.0])
def test_oblique_scan_keeps_its_grid_and_its_sides(tmp_path: Path, degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    raw = scan(turn @ oriented((0, 1, 2), (-1.0, 1.0, 1.0)))
    case, bits, _ = case_of(raw)
    export_case(case, bits, CLASSES, tmp_path, {}, formats=("nifti_per_class", "seg_nrrd"))
    for name in CLASSES:
        image = sitk.ReadImage(str(tmp_path / "s1" / "classes" / f"{name}.nii.gz"))
        mask = sitk.GetArrayFromImage(image).T != 0
        assert np.linalg.norm(centroid(mask, raw.affine) - CENTRES[name]) < WITHIN_MM
        point = image.TransformContinuousIndexToPhysicalPoint(np.argwhere(mask).mean(axis=0).tolist())
        assert np.allclose(np.array(point) * (-1, -1, 1), centroid(mask, raw.affine), atol=1e-2)


def test_tilted_series_gets_masks_on_its_slices_and_on_its_straight_volume(tmp_path: Path) -> None:
    affine = oriented((0, 1, 2), (-1.0, -1.0, 1.0))
    affine[1, 2] = 1.2  # each slice lies 1.2 mm further to the front
    paths = write_series(scan(affine), tmp_path / "ct", patient_id="4711")
    straight = read_series(paths)
    assert straight.steps[-1].name == "straighten"
    case, bits, image = case_of(straight)
    export_case(case, bits, CLASSES, tmp_path / "out", {"model": "models:/universal/2"}, image=image,
                formats=("dicom_seg", "rtstruct", "nifti_per_class"), source_series=tmp_path / "ct")  # fmt: skip
    told = json.loads((tmp_path / "out" / "s1" / "segmentation.json").read_text())
    assert told["gantry_tilt_degrees"] == pytest.approx(np.degrees(np.arctan(1.2 / 5.0)), abs=0.01)
    sheared = series_stack(paths)[0].affine
    on_slices = Volume(np.zeros(SHAPE), sheared)
    for file, names in told["dicom_seg_label_maps"].items():
        assert highdicom.seg.segread(tmp_path / "out" / "s1" / file).NumberOfFrames <= SHAPE[2]
        for segment in read_segmentation(tmp_path / "out" / "s1" / file):
            name = next(one for one in names if class_info(one).index == segment.number)
            mask = place_segment(segment, on_slices, "x").array
            assert np.linalg.norm(centroid(mask, sheared) - CENTRES[name]) < WITHIN_MM
    for name in CLASSES:
        read = nibabel.load(tmp_path / "out" / "s1" / "classes" / f"{name}.nii.gz")
        assert np.allclose(read.affine, straight.affine, atol=1e-4)
        assert np.linalg.norm(centroid(np.asarray(read.dataobj) != 0, read.affine) - CENTRES[name]) < WITHIN_MM


def test_patient_is_kept_only_when_asked(tmp_path: Path) -> None:
    raw = scan(oriented((0, 1, 2), (-1.0, -1.0, 1.0)))
    paths = write_series(raw, tmp_path / "ct", patient_id="4711", patient_name="MUSTER^ERIKA")
    case, bits, _ = case_of(read_series(paths))
    for keep in (False, True):
        export_case(case, bits, CLASSES, tmp_path / str(keep), {}, formats=("dicom_seg",), source_series=paths,
                    keep_patient=keep)  # fmt: skip
        seg = pydicom.dcmread(tmp_path / str(keep) / "s1" / "segmentation.seg.dcm")
        assert (str(seg.PatientName), seg.PatientID) == (("MUSTER^ERIKA", "4711") if keep else ("s1^", "s1"))
        assert seg.StudyInstanceUID == pydicom.dcmread(paths[0]).StudyInstanceUID


def test_json_says_what_the_values_are_and_what_was_painted_over(tmp_path: Path) -> None:
    raw = scan(oriented((0, 1, 2), (1.0, 1.0, 1.0)))
    case, bits, image = case_of(raw)
    files = export_case(case, bits, CLASSES, tmp_path, {"model": "models:/universal/2", "model_licence": "CC-BY-4.0",
                                                        "state": "pseudo"}, image=image)  # fmt: skip
    assert files[0].name == "segmentation.nii.gz"
    told = json.loads((tmp_path / "s1" / "segmentation.json").read_text())
    assert told["values"] == {"2": "right_kidney", "3": "left_kidney", "26": "kidney_tumor"}
    assert (told["resampled"], told["grid"]["orientation"], told["licence"]) == ("linear", "RAS", "CC-BY-4.0")
    inside = get_channel(bits, class_info("kidney_tumor").channel) & get_channel(bits, 1)
    assert inside.any()
    assert set(told["painted_over"]) == {"right_kidney"}
    assert told["classes"]["left_kidney"]["model"] == "models:/universal/2"
    assert set(told["files"]) == {path.name for path in (tmp_path / "s1").iterdir()} - {"segmentation.json"}


def test_probabilities_are_used_where_given_and_told(tmp_path: Path) -> None:
    raw = scan(oriented((0, 1, 2), (1.0, 1.0, 1.0)))
    case, bits, _ = case_of(raw)
    mask = get_channel(bits, class_info("left_kidney").channel)
    field = BoxedField((0, 0, 0, *mask.shape), np.where(mask, 130, 0).astype(np.uint8))
    export_case(case, bits, CLASSES, tmp_path, {}, probabilities={"left_kidney": field})
    told = json.loads((tmp_path / "s1" / "segmentation.json").read_text())
    plain = resample_masks(bits, np.reshape(case["affine"], (4, 4)), original_grid(case))
    assert told["resampled"] == "probability"
    # barely inside everywhere: between a voxel inside and one outside the border lies close to the one inside
    assert told["classes"]["left_kidney"]["voxels"] < get_channel(plain, class_info("left_kidney").channel).sum()
    assert told["classes"]["right_kidney"]["voxels"] == get_channel(plain, class_info("right_kidney").channel).sum()


def test_own_licence_of_the_case_decides_and_nothing_is_written(tmp_path: Path) -> None:
    raw = scan(oriented((0, 1, 2), (1.0, 1.0, 1.0)))
    case, bits, _ = case_of(raw)
    about = {"model": "models:/universal/2", "model_licence": "CC BY-NC-ND 4.0"}
    with pytest.raises(LicenceRefused, match=r"ward/s1: profile commercial .*model: CC BY-NC-ND 4.0"):
        export_case(case, bits, CLASSES, tmp_path, about, profile="commercial")
    assert not list(tmp_path.iterdir())
    # drawn by people: the scan's licence alone counts
    assert export_case(case, bits, CLASSES, tmp_path, {"state": "annotated"}, profile="commercial")


def test_masks_on_the_scans_grid_are_exported_as_they_are(tmp_path: Path) -> None:
    affine = oriented((1, 0, 2), (1.0, -1.0, 1.0))
    bits = empty_bits(SHAPE, 32)
    for name, mask in drawn(SHAPE, affine).items():
        set_channel(bits, class_info(name).channel, mask)
    path = export_classes(
        bits, Grid(SHAPE, affine), CLASSES, tmp_path / "p", {"scan": "p", "models": ["m.safetensors"]}
    )
    label = np.asarray(nibabel.load(path).dataobj)
    assert np.array_equal(label == 3, drawn(SHAPE, affine)["left_kidney"])
    assert json.loads((tmp_path / "p" / "segmentation.json").read_text())["classes"]["left_kidney"]["state"] == "pseudo"
