"""3D-IRCADb: structures as folders of DICOM slices, tied to the image by position, or by name where they have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from datasets_registry.cards import load_card
from datasets_registry.layouts import NoCasesFound, RawCase, reader_for
from imaging.dicom_write import write_series
from imaging.errors import BadInput
from imaging.resample import orient_ras
from imaging.volume import Volume

CARD = load_card("ircadb_01")
READER = reader_for(CARD)
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


def patient(root: Path, image: Volume, masks: dict[str, NDArray[Any]], number: int = 3, **options: Any) -> Path:
    """Write a patient whose file names run against position, as image_0 ... image_9."""
    folder = root / "3Dircadb1" / f"3Dircadb1.{number}"
    series(image, folder / "PATIENT_DICOM", **options)
    for name, mask in masks.items():
        series(image.with_array(mask.astype(np.int16)), folder / "MASKS_DICOM" / name, intercept=0)
    return folder


def series(volume: Volume, folder: Path, **options: Any) -> None:
    paths = write_series(volume, folder, patient_id="x", **options)
    for k, path in enumerate(paths):
        path.rename(path.with_name(f"image_{len(paths) - 1 - k}"))


def read_only(root: Path) -> RawCase:
    (case,) = READER.list_cases(root, CARD).cases
    return READER.read_case(case, CARD)


def mask_of(raw: RawCase, value: int) -> NDArray[np.bool_]:
    assert raw.label is not None
    mask: NDArray[np.bool_] = orient_ras(raw.label).array == value
    return mask


def edit_masks(folder: Path, change: Any, name: str = "liver") -> None:
    for path in sorted((folder / "MASKS_DICOM" / name).iterdir()):
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)


def test_structures_lie_where_they_were_drawn(tmp_path: Path, body: Any, store_as: Any) -> None:
    lps = ((0, 1, 2), (True, True, False))
    image, label = store_as(body.image, *lps), store_as(body.label, *lps)
    tumour = (label.array == 1) & (np.arange(10) == 5)
    second = (label.array == 1) & (np.arange(10) == 6)
    patient(
        tmp_path,
        image,
        {"liver": (label.array == 1) * 255, "livertumor01": tumour * 1, "livertumors": second * 255,
         "portalvein1": label.array * 0 + 255, "pancreas": (label.array == 2) * 255, "tumor": tumour * 255},
    )  # fmt: skip
    raw = read_only(tmp_path)
    assert np.array_equal(orient_ras(raw.image).array, body.image.array)
    liver = body.label.array == 1
    expected = liver & np.isin(np.arange(10), (5, 6))
    assert np.array_equal(mask_of(raw, 15), expected)
    assert np.array_equal(mask_of(raw, 1), liver & ~expected)
    assert np.array_equal(mask_of(raw, 7), body.label.array == 2)
    assert raw.present_values == frozenset({1, 7, 15, 16})
    assert CARD.annotated_in("3", raw.present_values) == ("liver", "pancreas", "liver_tumor")
    assert raw.notes == ("ircadb_01/3: structures without a meaning in the card: tumor",)


def test_liver_and_its_tumour_are_known_in_every_patient(tmp_path: Path, body: Any) -> None:
    patient(tmp_path, body.image, {"liver": (body.label.array == 1) * 255}, number=5)
    raw = read_only(tmp_path)
    assert CARD.annotated_in("5", raw.present_values) == ("liver", "liver_tumor")


@pytest.mark.parametrize("gone", [GEOMETRY, GEOMETRY[:1]])
def test_masks_without_geometry_follow_the_order_of_names(tmp_path: Path, body: Any, gone: tuple[str, ...]) -> None:
    folder = patient(tmp_path, body.image, {"liver": (body.label.array == 1) * 255})
    edit_masks(folder, lambda data: [delattr(data, keyword) for keyword in gone])
    raw = read_only(tmp_path)
    assert np.array_equal(mask_of(raw, 1), body.label.array == 1)
    assert raw.label is not None
    assert raw.label.steps[0].as_json() == '{"slices": 10, "step": "order_masks_by_name", "structure": 1}'


def test_masks_with_positions_alone_are_placed_by_them(tmp_path: Path, body: Any) -> None:
    folder = patient(tmp_path, body.image, {"liver": (body.label.array == 1) * 255})
    edit_masks(folder, lambda data: [delattr(data, keyword) for keyword in GEOMETRY[1:]])
    for path in sorted((folder / "MASKS_DICOM" / "liver").iterdir()):
        path.rename(path.with_name(f"z{(7 * int(path.name[6:])) % 10}_{path.name}"))
    # the card's pattern is image_*: the new names are put behind it
    for path in sorted((folder / "MASKS_DICOM" / "liver").iterdir()):
        path.rename(path.with_name(f"image_{path.name}"))
    assert np.array_equal(mask_of(read_only(tmp_path), 1), body.label.array == 1)


def test_count_of_masks_must_be_that_of_slices(tmp_path: Path, body: Any) -> None:
    folder = patient(tmp_path, body.image, {"liver": (body.label.array == 1) * 255})
    (folder / "MASKS_DICOM" / "liver" / "image_3").unlink()
    with pytest.raises(BadInput, match=r"ircadb_01/3 \(liver\): found 9 mask slices for 10 image slices"):
        read_only(tmp_path)


def test_masks_of_another_place_are_refused(tmp_path: Path, body: Any) -> None:
    folder = patient(tmp_path, body.image, {"liver": (body.label.array == 1) * 255})

    def lift(data: Any) -> None:
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, y, float(z) + 4]

    edit_masks(folder, lift)
    with pytest.raises(BadInput) as caught:
        read_only(tmp_path)
    assert caught.value.code == "label_shift"


def test_two_masks_at_one_slice_and_a_damaged_one_are_refused(tmp_path: Path, body: Any) -> None:
    folder = patient(tmp_path, body.image, {"liver": (body.label.array == 1) * 255})
    files = sorted((folder / "MASKS_DICOM" / "liver").iterdir())
    place = pydicom.dcmread(files[4]).ImagePositionPatient
    data = pydicom.dcmread(files[5])
    data.ImagePositionPatient = place
    data.PixelData = (data.pixel_array * 0 + 255).astype(np.int16).tobytes()
    data.save_as(files[5])
    with pytest.raises(BadInput) as caught:
        read_only(tmp_path)
    assert caught.value.code == "dicom_conflicting_slices"
    files[5].write_bytes(files[5].read_bytes()[:-200])
    with pytest.raises(BadInput) as caught:
        read_only(tmp_path)
    assert caught.value.code == "dicom_pixels"


def test_patient_without_masks_and_folder_without_patients(tmp_path: Path, body: Any) -> None:
    patient(tmp_path / "a", body.image, {})
    ((native_id, problem),) = READER.list_cases(tmp_path / "a", CARD).problems
    assert (native_id, problem.code) == ("3", "label_missing")
    (tmp_path / "b").mkdir()
    with pytest.raises(NoCasesFound):
        READER.list_cases(tmp_path / "b", CARD)
