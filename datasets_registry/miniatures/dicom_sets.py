"""Miniatures of sets shipped as DICOM: CHAOS with PNG masks, Pancreas-CT with NIfTI labels, an unlabelled cohort."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets_registry.cards import Card
from imaging.dicom_write import write_series
from imaging.nifti import write_nifti
from imaging.png_stack import write_png
from imaging.volume import Volume

FAKE_NAMES = ("DOE^JANE", "MUSTERMANN^ERIKA", "ROSSI^MARIO", "NOVAK^JAN", "SMITH^JOHN", "TANAKA^HANAKO")


def write_chaos_case(folder: Path, native_id: str, image: Volume, label: Volume, case: int) -> None:
    """Write one CHAOS CT case: file names of slices and masks both run from the head down, against position.

    image and label: third axis pointing to inferior. Cases take turns in file-name style and rescale intercept.
    """
    place = folder / "Train_Sets" / "CT" / native_id
    styles = ("i{index:04d},0000b.dcm", "IMG-0004-{index:05d}.dcm")
    write_series(
        image,
        place / "DICOM_anon",
        patient_id=f"CHAOS-{native_id}",
        file_name=styles[case % 2],
        intercept=(-1024, -1200)[case % 2],
    )
    (place / "Ground").mkdir(parents=True, exist_ok=True)
    for index in range(label.shape[2]):
        mask = (label.array[:, :, index].T != 0).astype(np.uint8) * np.uint8(255)  # rows are the second array axis
        write_png(mask, place / "Ground" / f"liver_GT_{index:03d}.png")


def write_chaos_mr(folder: Path) -> None:
    """Write the MR half of CHAOS, one small series that a CT reader must leave alone."""
    place = folder / "Train_Sets" / "MR" / "1" / "T2SPIR"
    signal = (np.arange(16 * 16 * 2).reshape(16, 16, 2) % 300).astype(np.int16)
    volume = Volume(signal, np.diag([-20.0, -20.0, 8.0, 1.0]))
    write_series(volume, place / "DICOM_anon", patient_id="CHAOS-MR-1", intercept=0, header={"Modality": "MR"})
    (place / "Ground").mkdir(parents=True, exist_ok=True)
    for index in range(2):
        write_png(np.zeros((16, 16), dtype=np.uint8), place / "Ground" / f"IMG-0002-{index + 1:05d}.png")


def write_pancreas_case(
    folder: Path, card: Card, native_id: str, image: Volume, label: Volume | None, case: int
) -> None:
    """Write one Pancreas-CT case: a series, and a label file whose rows run the other way than its affine says.

    The label's affine keeps only the spacing, so that nothing but the tissue tells how it lies on the image. It goes to
    the folder of the card's label variant; None writes the series alone.
    """
    study, series = f"PANCREAS{native_id}-Pancreas-{18000 + case}", f"Pancreas-{63000 + case}"
    place = folder / "Pancreas-CT" / f"PANCREAS_{native_id}" / study / series
    write_series(image, place, patient_id=f"PANCREAS_{native_id}", file_name="{index:06d}.dcm")
    if label is None:
        return
    labels = folder / (card.layout.label_glob or "").partition("/")[0]
    labels.mkdir(parents=True, exist_ok=True)
    flipped = np.ascontiguousarray(label.array[:, :, ::-1])
    write_nifti(Volume(flipped, np.diag([*label.spacing_mm, 1.0])), labels / f"label{native_id}.nii.gz")


def write_external_case(folder: Path, image: Volume, case: int) -> Path:
    """Write one scan of a hospital's cohort and return its folder: a series whose header is full of (fake) names."""
    name = FAKE_NAMES[case % len(FAKE_NAMES)]
    header: Mapping[str, str] = {
        "PatientBirthDate": f"19{50 + case % 40}0{1 + case % 9}17",
        "PatientSex": "FM"[case % 2],
        "PatientAddress": f"{case + 1} Example Street",
        "InstitutionName": "Example General Hospital",
        "ReferringPhysicianName": "WATSON^JOHN",
        "AccessionNumber": f"ACC{case:06d}",
        "StudyDate": "20240229",
        "StudyDescription": f"CT ABDOMEN {name}",
        "OtherPatientIDs": f"SSN-000-00-{case:04d}",
    }
    place = folder / name.replace("^", "_") / f"CT_{case:03d}"
    write_series(image, place, patient_id=f"HOSP-{case:05d}", patient_name=name, header=header)
    return place
