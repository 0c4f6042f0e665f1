"""The miniature of 3D-IRCADb-01: DICOM slices, and DICOM masks in one folder a structure, other names each patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.structures import Mask, class_mask, shape_mask
from imaging.dicom_write import write_series
from imaging.volume import Volume

FOREGROUND = 255
SLICE_NAME = "image_{index}"


@dataclass(frozen=True)
class Patient:
    """What one patient ships: folder name -> class of the taxonomy, `lungs`, `liver_part` or `bone`.

    tumour_name: template of the folders that hold one tumour each, with `index` from 1.
    """

    folders: dict[str, str]
    tumour_name: str = "livertumor{index:02d}"


PATIENTS: dict[int, Patient] = {
    1: Patient(
        {
            "liver": "liver",
            "rightkidney": "right_kidney",
            "leftkidney": "left_kidney",
            "rightlung": "right_lung",
            "leftlung": "left_lung",
            "spleen": "spleen",
            "gallbladder": "gall_bladder",
            "venacava": "postcava",
            "portalvein": "portal_vein_and_splenic_vein",
            "liverkyste": "liver_part",
            "bone": "bone",
        }
    ),
    2: Patient(
        {"liver": "liver", "venacava": "postcava", "aorta": "aorta", "portalvein1": "hepatic_vessel"},
        "livertumor{index}",
    ),
    3: Patient({"liver": "liver", "lungs": "lungs", "pancreas": "pancreas", "bone": "bone"}, "livertumors"),
    5: Patient({"liver": "liver", "lungs": "lungs", "spleen": "spleen"}),
    7: Patient({"liver": "liver", "tumor": "liver_part", "pancreas": "pancreas"}),
    14: Patient({"liver": "liver", "metastasectomie": "liver_part", "stomach": "stomach"}),
}
"""Structure sets of some patients; the others ship those of patient 2."""


def write_ircadb_case(folder: Path, number: int, scan: Scan) -> None:
    """Write one patient: PATIENT_DICOM, LABELLED_DICOM, and MASKS_DICOM with a folder for each structure.

    scan: third axis along the body. Names count from the head down, against position.
    """
    patient = PATIENTS.get(number, PATIENTS[2])
    place = folder / "3Dircadb1" / f"3Dircadb1.{number}"
    who = f"liver_{number:02d}"
    volume = _from_the_head(scan.image)
    flipped = volume is not scan.image
    write_series(volume, place / "PATIENT_DICOM", patient_id=who, file_name=SLICE_NAME)
    labelled = np.zeros(scan.image.shape, dtype=np.int16)
    for value, (name, mask) in enumerate(_masks(scan, patient).items(), start=1):
        labelled[mask] = value
        _write_values(volume, mask * np.int16(FOREGROUND), flipped, place / "MASKS_DICOM" / name, who)
    _write_values(volume, labelled, flipped, place / "LABELLED_DICOM", who)


def _masks(scan: Scan, patient: Patient) -> dict[str, Mask]:
    masks: dict[str, Mask] = {}
    for name, meaning in patient.folders.items():
        if meaning == "bone":
            masks[name] = shape_mask(scan, meaning)
        elif meaning == "lungs":
            masks[name] = class_mask(scan, "right_lung") | class_mask(scan, "left_lung")
        elif meaning == "liver_part":
            masks[name] = _part_of_liver(scan)
            if name != "tumor":  # a cyst and a scar count as liver only by their own folder
                masks["liver"] = masks["liver"] & ~masks[name]
        else:
            masks[name] = class_mask(scan, meaning)
    tumours = class_mask(scan, "liver_tumor")
    for index, part in enumerate(_separate(tumours) if "index" in patient.tumour_name else [tumours], start=1):
        masks[patient.tumour_name.format(index=index)] = part
    return {name: mask for name, mask in masks.items() if mask.any()}


def _part_of_liver(scan: Scan) -> Mask:
    """Return a spot of the liver that a folder calls a cyst, a scar or a tumour; the phantom shows liver there."""
    grid = scan.anatomy.body.on_grid(scan.image.shape, scan.true_affine)
    spot: Mask = (grid.x - 96) ** 2 + (grid.y - 30) ** 2 + (grid.z - 62) ** 2 < 16**2
    return spot & class_mask(scan, "liver") & ~class_mask(scan, "liver_tumor")


def _separate(mask: Mask) -> list[Mask]:
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return [parts == index for index in range(1, count + 1)]


def _from_the_head(image: Volume) -> Volume:
    """Return the volume with its third axis pointing to the feet."""
    if image.affine[2, 2] < 0:
        return image
    back = np.diag([1.0, 1.0, -1.0, 1.0])
    back[2, 3] = image.shape[2] - 1
    return Volume(image.array[:, :, ::-1], image.affine @ back)


def _write_values(volume: Volume, values: NDArray[np.int16], flipped: bool, folder: Path, who: str) -> None:
    array = values[:, :, ::-1] if flipped else values
    write_series(volume.with_array(array), folder, patient_id=who, file_name=SLICE_NAME, intercept=0)
