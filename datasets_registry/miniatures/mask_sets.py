"""Miniatures of sets with one NIfTI file a structure (TotalSegmentator): also those that no class stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets_registry.cards import Card
from datasets_registry.miniatures.nifti_sets import image_name
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.structures import masks_by_name, shape_mask
from imaging.nifti import write_nifti

UNMAPPED = ("femur_left", "femur_right", "hip_left", "hip_right", "vertebrae_L1", "vertebrae_L3", "heart", "sacrum")
"""Structures of the set that no class of the taxonomy stands for; the femurs are whole bones, not heads."""


def write_mask_case(folder: Path, card: Card, number: int, scan: Scan) -> None:
    """Write one subject: ct.nii.gz, and segmentations/<structure>.nii.gz for declared and unmapped structures."""
    subject = folder / image_name(card, number)[1].parent
    (subject / "segmentations").mkdir(parents=True)
    write_nifti(scan.image, subject / "ct.nii.gz")
    masks = masks_by_name(scan, card) | {name: shape_mask(scan, name) for name in UNMAPPED}
    for name, mask in masks.items():
        write_nifti(scan.image.with_array(mask.astype(np.uint8)), subject / "segmentations" / f"{name}.nii.gz")


def write_meta(folder: Path, card: Card, numbers: Sequence[int]) -> None:
    """Write meta.csv, one subject a line, separated by semicolons."""
    lines = ["image_id;age;gender;institute;study_type;split"]
    for place, number in enumerate(numbers):
        subject = image_name(card, number)[1].parent.name
        split = ("train", "train", "val", "test")[place % 4]
        lines.append(f"{subject};{40 + 7 * place % 45};{'mf'[place % 2]};B;ct abdomen-pelvis;{split}")
    root = folder / image_name(card, numbers[0])[1].parent.parent
    (root / "meta.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
