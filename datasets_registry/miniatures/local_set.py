"""Cohorts of a hospital: scans as DICOM and NIfTI under names of (fake) patients, for the card `local`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets_registry.cards import load_card
from datasets_registry.layouts import reader_for
from datasets_registry.miniatures.case_scans import Spacing, patient_scan
from datasets_registry.miniatures.dicom_sets import FAKE_NAMES, write_external_case
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.scans import lesions_of
from datasets_registry.miniatures.structures import class_mask, shape_mask
from datasets_registry.miniatures.styles import EXTERNAL_STYLE, ScanStyle
from datasets_registry.miniatures.truth import separate_folders, write_truth
from imaging.nifti import write_nifti

LABELLED: tuple[dict[str, str], ...] = (
    {
        "Liver": "liver",
        "kidney_right": "right_kidney",
        "Kidney_L": "left_kidney",
        "IVC": "postcava",
        "spleen": "spleen",
        "femoral head left": "left_head_of_femur",
    },
    {"pancreas": "pancreas", "liver": "liver", "liver_tumour": "liver_tumor", "duodenum": "duodenum"},
    {},
)
"""Structures drawn in the cases of a local cohort, in turn: name of the mask file -> class; the rest is unknown."""
UNKNOWN_STRUCTURE = "patient couch support"
"""A mask whose name means nothing to the card."""


def write_external(folder: Path, *, cases: int, seed: int, truth_folder: Path, dataset: str = "local") -> list[str]:
    """Write an unlabelled DICOM cohort with (fake) names in headers and folders; return its native ids in case order.

    The ids are the pseudonyms that the reader of card `local` gives; the truth goes to
    `truth_folder/<dataset>/<native id>.npz`, as by `write_miniature`. `folder` must not hold other scans.
    """
    folder, truth_folder = separate_folders(folder, truth_folder)
    truths: dict[Path, Scan] = {}
    for case in range(cases):
        scan = patient_scan(f"external/{case}", seed, EXTERNAL_STYLE, lesions_of(case, EXTERNAL_STYLE, None))
        truths[write_external_case(folder, scan.image, case)] = scan
    return named_by_reader(folder, truths, truth_folder, dataset)


def write_local(
    folder: Path, *, cases: int, seed: int, truth_folder: Path, spacing_mm: Spacing | None = None
) -> list[str]:
    """Write a partly labelled cohort, DICOM series and NIfTI files in turn; return its native ids in case order.

    Labels are one NIfTI file a structure, under names as people give them (`LABELLED`), some with a structure that the
    card does not know. Ids and truth as by `write_external`.
    """
    folder, truth_folder = separate_folders(folder, truth_folder)
    style = ScanStyle("LPS", spacing_mm or EXTERNAL_STYLE.spacing_mm, lesions={"hepatic_vessel_tumor": (0,)})
    truths: dict[Path, Scan] = {}
    for case in range(cases):
        lesions = {**lesions_of(case, style, None), "liver_tumor": 1}
        scan = patient_scan(f"local/{case}", seed, style, lesions)
        if case % 2 == 0:
            place = write_external_case(folder, scan.image, case)
            masks = place / "masks"
        else:
            place = folder / FAKE_NAMES[case % len(FAKE_NAMES)].replace("^", "_") / f"scan_{case:03d}.nii.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_nifti(scan.image, place)
            masks = place.parent / f"scan_{case:03d}_masks"
        _write_masks(masks, scan, LABELLED[case % len(LABELLED)])
        truths[place] = scan
    (folder / "Thumbs.db").write_bytes(bytes(64))
    return named_by_reader(folder, truths, truth_folder, "local")


def _write_masks(folder: Path, scan: Scan, structures: dict[str, str]) -> None:
    if not structures:
        return
    folder.mkdir(parents=True)
    masks = {name: class_mask(scan, class_name) for name, class_name in structures.items()}
    masks[UNKNOWN_STRUCTURE] = shape_mask(scan, "skin")
    for name, mask in masks.items():
        write_nifti(scan.image.with_array(mask.astype(np.uint8)), folder / f"{name}.nii.gz")


def named_by_reader(folder: Path, truths: dict[Path, Scan], truth_folder: Path, dataset: str) -> list[str]:
    """Write the truth of each scan under the pseudonym that the reader gives it; return these in order of `truths`.

    truths: the scan's file, or the folder of its series -> scan.
    """
    local = load_card("local")
    found = {}
    for one in reader_for(local).list_cases(folder, local).cases:
        image = one.image[0]
        found[image if image in truths else image.parent] = one.native_id
    if set(found) != set(truths):
        raise ValueError(f"{len(found)} scans found where {len(truths)} were written; give an empty folder")
    for place, scan in truths.items():
        write_truth(truth_folder, dataset, found[place], scan)
    return [found[place] for place in truths]
