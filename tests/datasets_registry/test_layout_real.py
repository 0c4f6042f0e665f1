"""The readers on real files; each test skips where they are absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets_registry.cards import Card, load_card
from datasets_registry.label_map import native_to_bits
from datasets_registry.layouts import RawCase, reader_for
from datasets_registry.taxonomy import class_names
from imaging.bits import count_voxels
from imaging.components import bounding_box, box_slices
from imaging.errors import BadInput
from imaging.nifti import read_nifti
from imaging.resample import orient_ras
from imaging.volume import Volume

pytestmark = pytest.mark.real_data
RealCase = Callable[[str], Path]


def read_only_case(root: Path, card: Card) -> RawCase:
    listing = reader_for(card).list_cases(root, card)
    assert listing.problems == ()
    (case,) = listing.cases
    return reader_for(card).read_case(case, card)


def voxels_of(bits: Any) -> dict[str, int]:
    counts = count_voxels(bits, len(class_names()))
    return {name: int(count) for name, count in zip(class_names(), counts, strict=True) if count}


def test_gantry_tilt_is_read_straight(real: RealCase) -> None:
    raw = read_only_case(real("dicom_gantry_tilt"), load_card("local"))
    assert [note.split(": ", 1)[1] for note in raw.notes] == ["only 4 slices, fewer than 10"]
    directions = raw.image.affine[:3, :3] / np.array(raw.image.spacing_mm)
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-3)
    assert any("degrees" in step.parameters for step in raw.image.steps)


@pytest.mark.parametrize("name", ["dicom_missing_slice", "dicom_same_position"])
def test_a_stack_that_is_no_volume_is_refused_under_its_pseudonym(real: RealCase, name: str) -> None:
    card = load_card("local")
    (case,) = reader_for(card).list_cases(real(name), card).cases
    with pytest.raises(BadInput, match=rf"local/{case.native_id}: "):
        reader_for(card).read_case(case, card)


def test_a_series_without_uid_in_jpeg_2000_is_read(real: RealCase) -> None:
    card = load_card("local")
    root = real("totalsegmentator_dicom")
    listing = reader_for(card).list_cases(root, card)
    assert listing.problems == ()
    assert (len(listing.cases), listing.skipped_files) == (1, 1)  # source.json
    raw = reader_for(card).read_case(listing.cases[0], card)
    image = raw.image
    assert raw.label is None
    assert [note.split(": ", 1)[1] for note in raw.notes] == [
        "1 label maps left out: values mean nothing without a card"
    ]
    label = read_nifti(root / "label.nii.gz")
    assert sorted(image.shape) == sorted(label.shape)
    assert image.shape[2] == 20
    assert -1024 <= image.array.min() < -900


def test_totalsegmentator_example_has_every_voxel_of_its_mapped_values(real: RealCase) -> None:
    card = load_card("totalsegmentator_example")
    root = real("totalsegmentator_example")
    raw = read_only_case(root, card)
    assert raw.label is not None
    source = json.loads((root / "source.json").read_text())["expected"]["label_fast.nii.gz"]["labels"]
    expected: dict[str, int] = {}
    for value, found in source.items():
        assert card.labels[int(value)].name == found["name"]
        for name in card.labels[int(value)].classes:
            expected[name] = expected.get(name, 0) + found["voxels"]
    result = native_to_bits(orient_ras(raw.label), card, orient_ras(raw.image))
    assert voxels_of(result.bits) == expected
    assert expected["liver"] == 41692
    assert expected["left_lung"] == 266 + 1259


def split_at(path: Path, middle_mm: float | None = None) -> tuple[dict[str, int], dict[str, str]]:
    """Split a label whose image is absent, at world x `middle_mm` or else at the middle of its volume."""
    label = orient_ras(read_nifti(path))
    if middle_mm is None:
        middle_mm = float(label.world_mm((np.array([label.shape]) - 1) / 2)[0, 0])
    box = box_slices(bounding_box(label.array != 0) or (0, 0, 0, 1, 1, 1))  # the rest of the volume is empty
    affine = label.affine.copy()
    affine[:3, 3] = label.world_mm(np.array([[part.start for part in box]]))[0]
    cropped = Volume(label.array[box], affine)
    result = native_to_bits(cropped, load_card("kits"), None, midline_x=np.full(cropped.shape[2], middle_mm))
    return voxels_of(result.bits), result.split_status


def test_a_single_right_kidney_stays_right(real: RealCase) -> None:
    voxels, status = split_at(real("kits_case_00165") / "kits23_label.nii.gz")
    assert voxels == {"right_kidney": 354552 + 1220 + 5407, "kidney_tumor": 1220, "kidney_cyst": 5407}
    assert status == {"right_kidney": "right_only"}


@pytest.mark.parametrize(
    ("middle_mm", "status"),
    [
        (-328.0, "cut"),  # through the isthmus, where the spine must be
        (
            None,
            "left_only",
        ),  # the patient lies off centre, so the volume's middle misses the organ: why images are read
    ],
)
def test_a_horseshoe_kidney_keeps_every_voxel(real: RealCase, middle_mm: float | None, status: str) -> None:
    voxels, found = split_at(real("kits_case_00005") / "kits23_label.nii.gz", middle_mm)
    assert found == {"right_kidney": status}
    assert voxels.get("right_kidney", 0) + voxels["left_kidney"] == 828852 + 134967
    assert voxels["kidney_tumor"] == 134967
    if status == "cut":
        assert min(voxels["right_kidney"], voxels["left_kidney"]) > 300_000


def test_kits_label_without_its_image_is_a_problem(real: RealCase, tmp_path: Path) -> None:
    card = load_card("kits")
    folder = tmp_path / "dataset" / "case_00165"
    folder.mkdir(parents=True)
    shutil.copy(real("kits_case_00165") / "kits23_label.nii.gz", folder / "segmentation.nii.gz")
    ((native_id, problem),) = reader_for(card).list_cases(tmp_path, card).problems
    assert (native_id, problem.code) == ("00165", "image_missing")


def test_an_unlabelled_scan_of_another_origin_is_read(real: RealCase) -> None:
    raw = read_only_case(real("crlm_ct_1004_unlabelled"), load_card("local"))
    assert isinstance(raw.image, Volume)
    assert raw.label is None


def test_a_real_series_and_its_nifti_label_meet_although_stored_apart(real: RealCase) -> None:
    root = real("totalsegmentator_dicom")
    fields = load_card("totalsegmentator_example").model_dump()
    layout = {
        "reader": "dicom_nifti",
        "tree": "",
        "image_glob": "dicom/*",
        "label_glob": "label.nii.gz",
        "case_id": "1",
    }
    raw = read_only_case(root, Card(**{**fields, "layout": layout}))
    assert raw.label is not None
    expected = json.loads((root / "source.json").read_text())["expected"]["label.nii.gz"]["labels"]
    values, voxels = np.unique(raw.label.array[raw.label.array != 0], return_counts=True)
    assert dict(zip(values.tolist(), voxels.tolist(), strict=True)) == {
        int(value): found["voxels"] for value, found in expected.items()
    }
    liver = next(int(value) for value, found in expected.items() if found["name"] == "liver")
    assert 0 < raw.image.array[raw.label.array == liver].mean() < 200
