"""The `local` layout: pseudonyms from bytes, labels left out, and no name of a patient anywhere."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets_registry.cards import load_card
from datasets_registry.layouts import NoCasesFound, reader_for
from imaging.dicom_write import write_series
from imaging.errors import BadInput
from imaging.nifti import write_nifti

CARD = load_card("local")
READER = reader_for(CARD)
NAMES = ("Mustermann", "Erika", "Klinikum", "4711")


@pytest.fixture
def cohort(tmp_path: Path, body: Any) -> Path:
    """Two patients in folders that name them (one DICOM series, one NIfTI with its label), a report, litter."""
    root = tmp_path / "Klinikum"
    series = root / "Mustermann^Erika" / "CT 4711"
    write_series(body.image, series, patient_id="4711", patient_name="Mustermann^Erika")
    other = root / "Mustermann_4711"
    other.mkdir(parents=True)
    shifted = body.image.with_array((body.image.array + 1).astype(np.int16))
    write_nifti(shifted, other / "Mustermann_Erika_4711.nii.gz")
    write_nifti(body.label, other / "Mustermann_seg.nii.gz")
    (other / "report_Mustermann.txt").write_text("x")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def test_every_scan_is_a_case_under_a_pseudonym_and_the_rest_is_counted(cohort: Path, body: Any) -> None:
    listing = READER.list_cases(cohort, CARD)
    assert len(listing.cases) == 2
    assert listing.problems == ()
    assert listing.skipped_files == 3  # label, report, .DS_Store
    for case in listing.cases:
        assert re.fullmatch(r"s[0-9a-f]{10}", case.native_id)
        raw = READER.read_case(case, CARD)
        assert raw.label is None
        assert raw.image.array.min() in (-1000, -999)


def test_the_pseudonym_stays_when_files_are_renamed_and_moved(cohort: Path, tmp_path: Path) -> None:
    before = [case.native_id for case in READER.list_cases(cohort, CARD).cases]
    moved = tmp_path / "elsewhere"
    for number, path in enumerate(sorted(cohort.rglob("*"), reverse=True)):
        if path.is_file() and not path.name.endswith("seg.nii.gz"):
            suffix = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
            target = moved / ("a" if suffix == ".dcm" else "b") / f"{number}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert [case.native_id for case in READER.list_cases(moved, CARD).cases] == before


def test_no_name_reaches_listing_steps_notes_messages_or_logs(
    cohort: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    for break_it in (False, True):
        if break_it:
            for path in cohort.rglob("*"):
                if path.name.endswith((".nii.gz", ".dcm")):
                    path.write_bytes(path.read_bytes()[:-500])
        listing = READER.list_cases(cohort, CARD)
        said.append(repr(listing))
        for case in listing.cases:
            said.append(repr(case))
            try:
                raw = READER.read_case(case, CARD)
            except BadInput as problem:
                said += [str(problem), repr(problem), str(problem.record())]
            else:
                said += [*raw.notes, *(step.as_json() for step in raw.image.steps)]
    output = capfd.readouterr()
    said += [caplog.text, output.out, output.err]
    assert not [name for name in NAMES for text in said if name in text]


def test_a_second_copy_is_a_problem_and_not_a_second_case(cohort: Path) -> None:
    (path,) = cohort.rglob("Mustermann_Erika_4711.nii.gz")
    shutil.copy(path, path.with_name("copy.nii.gz"))
    listing = READER.list_cases(cohort, CARD)
    assert len(listing.cases) == 2
    ((native_id, problem),) = listing.problems
    assert native_id in [case.native_id for case in listing.cases]
    assert problem.code == "duplicate_case"


def test_two_patients_in_one_folder_are_refused_with_their_count(tmp_path: Path, body: Any) -> None:
    for number in (1, 2):
        image = body.image.with_array((body.image.array + number).astype(np.int16))
        write_series(image, tmp_path, patient_id=f"Mustermann {number}", file_name=f"{number}-{{index:04d}}.dcm")
    listing = READER.list_cases(tmp_path, CARD)
    assert listing.cases == ()
    assert [problem.code for _, problem in listing.problems] == ["two_patients", "two_patients"]
    assert "files of 2 patients in one folder" in str(listing.problems[0][1])


def test_a_surname_that_begins_like_a_label_word_is_an_image(tmp_path: Path, body: Any) -> None:
    for name in ("Segovia.nii.gz", "Maskell.nii"):
        image = body.image.with_array((body.image.array + len(name)).astype(np.int16))
        write_nifti(image, tmp_path / name)
    for name in ("ct_seg.nii.gz", "kits19_label.nii.gz", "liver-mask.nii.gz", "segmentation_1.nii.gz"):
        write_nifti(body.label, tmp_path / name)
    listing = READER.list_cases(tmp_path, CARD)
    assert (len(listing.cases), listing.skipped_files) == (2, 4)


def test_an_empty_folder_says_what_is_expected_and_names_nobody(tmp_path: Path, body: Any) -> None:
    folder = tmp_path / "Mustermann"
    with pytest.raises(NoCasesFound, match="the given source is no folder"):
        READER.list_cases(folder, CARD)
    folder.mkdir()
    write_nifti(body.label, folder / "Erika_label.nii.gz")
    with pytest.raises(NoCasesFound, match="found 1 files, 1 of them NIfTI files named like labels") as caught:
        READER.list_cases(folder, CARD)
    assert not [name for name in NAMES if name in str(caught.value)]
