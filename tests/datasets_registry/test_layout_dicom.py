"""CHAOS (DICOM + PNG) and Pancreas-CT (DICOM + NIfTI): slices stay tied to their masks, labels find their flip."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets_registry.cards import load_card
from datasets_registry.layouts import reader_for
from imaging.dicom_write import write_series
from imaging.errors import BadInput
from imaging.nifti import write_nifti
from imaging.png_stack import write_png
from imaging.resample import orient_ras
from imaging.volume import Volume


def chaos_case(root: Path, image: Volume, label: Volume, foreground: int = 255) -> Path:
    """Write one CHAOS case, axes to left and behind, whose file names run against position: the first is the top."""
    folder = root / "Train_Sets" / "CT" / "5"
    (folder / "Ground").mkdir(parents=True)
    write_series(image, folder / "DICOM_anon", patient_id="x")
    files = sorted((folder / "DICOM_anon").glob("*.dcm"))
    last = len(files) - 1
    for index, path in enumerate(files):
        path.rename(path.with_name(f"i{last - index},0000b.dcm"))
    for index in range(label.shape[2]):
        png = np.where(label.array[:, :, index].T == 1, foreground, 0).astype(np.uint8)  # (rows, columns)
        write_png(png, folder / "Ground" / f"liver_GT_{last - index:03d}.png")
    return folder


@pytest.mark.parametrize("foreground", [1, 255])
def test_chaos_png_follows_its_dicom_file_through_the_sorting(
    tmp_path: Path, body: Any, store_as: Any, foreground: int
) -> None:
    card = load_card("chaos_ct")
    lps = ((0, 1, 2), (True, True, False))
    chaos_case(tmp_path, store_as(body.image, *lps), store_as(body.label, *lps), foreground)
    (case,) = reader_for(card).list_cases(tmp_path, card).cases
    raw = reader_for(card).read_case(case, card)
    assert case.native_id == "5"
    assert raw.label is not None
    image, label = orient_ras(raw.image), orient_ras(raw.label)
    assert np.array_equal(image.array, body.image.array)
    assert np.array_equal(label.array == 1, body.label.array == 1)
    assert np.unique(label.array).tolist() == [0, 1]


def test_chaos_with_a_mask_too_few_is_refused(tmp_path: Path, body: Any) -> None:
    card = load_card("chaos_ct")
    folder = chaos_case(tmp_path, body.image, body.label)
    (folder / "Ground" / "liver_GT_003.png").unlink()
    (case,) = reader_for(card).list_cases(tmp_path, card).cases
    with pytest.raises(BadInput, match="chaos_ct/5: found 9 PNG masks for 10 DICOM slices"):
        reader_for(card).read_case(case, card)


def pancreas_case(root: Path, image: Volume, label: Volume, number: str = "0002") -> None:
    write_series(image, root / "Pancreas-CT" / f"PANCREAS_{number}" / "study" / "series", patient_id="x")
    target = root / "label_tcia_multiorgan" / f"label{number}.nii.gz"
    target.parent.mkdir(exist_ok=True)
    values = np.zeros_like(label.array)
    values[label.array == 1], values[label.array == 2] = 6, 11
    write_nifti(label.with_array(values), target)


def read_only_case(root: Path) -> Any:
    card = load_card("pancreas_ct")
    (case,) = reader_for(card).list_cases(root, card).cases
    return reader_for(card).read_case(case, card)


@pytest.mark.parametrize("flips", [(True, True, False), (False, False, True)])
def test_pancreas_label_that_agrees_up_to_flips_follows_its_affine(
    tmp_path: Path, body: Any, store_as: Any, flips: tuple[bool, bool, bool]
) -> None:
    pancreas_case(tmp_path, body.image, store_as(body.label, (0, 1, 2), flips))
    raw = read_only_case(tmp_path)
    assert np.array_equal(orient_ras(raw.label).array == 11, body.label.array == 2)
    assert "flip_by_tissue" not in [step.name for step in raw.label.steps]


@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_pancreas_label_with_a_useless_affine_finds_the_flip_by_tissue(
    tmp_path: Path, body: Any, flips: tuple[bool, bool, bool]
) -> None:
    slices = tuple(slice(None, None, -1) if flipped else slice(None) for flipped in flips)
    useless = np.diag([8.0, 9.0, 10.0, 1.0])  # the spacing survived, origin and directions did not
    pancreas_case(tmp_path, body.image, Volume(np.ascontiguousarray(body.label.array[slices]), useless))
    raw = read_only_case(tmp_path)
    assert np.array_equal(orient_ras(raw.label).array == 11, body.label.array == 2)
    (step,) = [step for step in raw.label.steps if step.name == "flip_by_tissue"]
    assert step.parameters["axes_ras"] == list(flips)


def test_two_flips_that_fit_alike_are_refused_with_both_affines(tmp_path: Path, body: Any) -> None:
    uniform = body.image.with_array(np.where(body.image.array > -600, 40, -1000).astype(np.int16))
    pancreas_case(tmp_path, uniform, Volume(body.label.array, np.diag([8.0, 9.0, 10.0, 1.0])))
    with pytest.raises(
        BadInput, match=r"pancreas_ct/0002.*label affine \[\[8\.0.*image affine.*no single fitting flip"
    ):
        read_only_case(tmp_path)


def test_a_label_of_another_shape_is_refused(tmp_path: Path, body: Any) -> None:
    pancreas_case(tmp_path, body.image, Volume(body.label.array[:-1], body.label.affine))
    with pytest.raises(BadInput, match="pancreas_ct/0002"):
        read_only_case(tmp_path)


def test_withdrawn_cases_and_cases_without_gibson_labels(tmp_path: Path, body: Any) -> None:
    card = load_card("pancreas_ct")
    pancreas_case(tmp_path, body.image, body.label, "0025")
    write_series(body.image, tmp_path / "Pancreas-CT" / "PANCREAS_0001" / "study" / "series", patient_id="x")
    listing = reader_for(card).list_cases(tmp_path, card)
    assert [case.native_id for case in listing.cases] == ["0001"]
    assert listing.cases[0].label == ()
    assert [(native_id, problem.code) for native_id, problem in listing.problems] == [("0025", "faulty_case")]
