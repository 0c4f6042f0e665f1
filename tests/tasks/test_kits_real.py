"""All real KiTS labels: no voxel lost, sides as the anatomy has them. Labels only; the images are not public there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets_registry.cards import load_card
from datasets_registry.label_map import LabelBits, native_to_bits
from datasets_registry.taxonomy import class_names
from imaging.bits import count_voxels
from imaging.components import bounding_box, crop, grow
from imaging.nifti import read_nifti
from imaging.resample import Grid, grid_for, orient_ras, resample_bits
from imaging.volume import Volume

pytestmark = pytest.mark.real_data

CASES = ("00000", "00005", "00023", "00030", "00038", "00061", "00120", "00139", "00160", "00165")
BOTH_LABELS = ("00005", "00030", "00165")
OFF_CENTRE_MM = {"00005": -328.0}
"""World x of the spine where the middle of the volume misses it; elsewhere the patient lies centred."""


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "source.json").read_text())["expected"]
    return facts


def label_of(path: Path, case: str) -> tuple[Volume, float]:
    """Return the label's box in RAS order, with a margin for coarser grids, and world x of the body's middle."""
    label = orient_ras(read_nifti(path))
    middle = float(label.world_mm((np.array([label.shape]) - 1) / 2)[0, 0])
    box = bounding_box(label.array != 0)
    assert box is not None
    return crop(label, grow(box, (6, 6, 6), label.shape)), OFF_CENTRE_MM.get(case, middle)


def bits_of(label: Volume, middle: float, variant: str) -> LabelBits:
    card = load_card("kits", variant=variant)
    return native_to_bits(label, card, None, midline_x=np.full(label.shape[2], middle))


def ml_of(bits: Any, grid: Grid) -> dict[str, float]:
    voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    counts = count_voxels(bits, len(class_names()))
    return {name: float(count * voxel_ml) for name, count in zip(class_names(), counts, strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_volumes_and_sides_of_every_kits_label(real_data: Path, case: str) -> None:
    folder = real_data / f"kits_case_{case}"
    facts = facts_of(folder)
    label, middle = label_of(folder / "kits19_label.nii.gz", case)
    made = bits_of(label, middle, "kits19")
    native = {int(value): item["volume_ml"] for value, item in facts["kits19_label.nii.gz"]["labels"].items()}
    ml = ml_of(made.bits, Grid.of(label))
    assert "kidney_cyst" not in made.annotated
    assert ml["kidney_tumor"] == pytest.approx(native[2], abs=0.001)
    assert ml["right_kidney"] + ml["left_kidney"] == pytest.approx(sum(native.values()), abs=0.002)
    # the third axis on disk runs to the patient's left, so parts beyond its middle are left ones
    parts = facts["foreground_components_26"]["largest"]
    columns = (orient_ras(read_nifti(folder / "kits19_label.nii.gz")).shape[0] - 1) / 2
    if case == "00005":
        assert made.split_status == {"right_kidney": "cut"}
        assert min(ml["right_kidney"], ml["left_kidney"]) > 150
    else:
        left = sum(part["volume_ml"] for part in parts if part["centroid_voxel"][2] > columns)
        right = sum(part["volume_ml"] for part in parts if part["centroid_voxel"][2] <= columns)
        assert ml["left_kidney"] == pytest.approx(left, rel=0.01, abs=0.01)
        assert ml["right_kidney"] == pytest.approx(right, rel=0.01, abs=0.01)
        assert made.split_status == {"right_kidney": "right_only" if case == "00165" else "two"}
    grid = grid_for(label, (1.5, 1.5, 1.5))
    on_grid = ml_of(resample_bits(made.bits, label.affine, grid), grid)
    for name in ("right_kidney", "left_kidney"):
        assert on_grid[name] == pytest.approx(ml[name], rel=0.01, abs=0.01)


@pytest.mark.parametrize("case", BOTH_LABELS)
def test_kits19_and_kits23_labels_of_one_patient_differ_as_published(real_data: Path, case: str) -> None:
    folder = real_data / f"kits_case_{case}"
    facts = facts_of(folder)
    label, middle = label_of(folder / "kits23_label.nii.gz", case)
    made = bits_of(label, middle, "kits23")
    native = {int(value): item["voxels"] for value, item in facts["kits23_label.nii.gz"]["labels"].items()}
    voxels = dict(zip(class_names(), count_voxels(made.bits, len(class_names())), strict=True))
    assert "kidney_cyst" in made.annotated
    assert voxels["kidney_cyst"] == native.get(3, 0)
    assert voxels["kidney_tumor"] == native[2]
    assert voxels["right_kidney"] + voxels["left_kidney"] == sum(native.values())
    older = orient_ras(read_nifti(folder / "kits19_label.nii.gz")).array
    newer = orient_ras(read_nifti(folder / "kits23_label.nii.gz")).array
    common = np.count_nonzero((older != 0) & (newer != 0))
    dice = 2 * common / (np.count_nonzero(older) + np.count_nonzero(newer))
    assert dice == pytest.approx(facts["kits19_against_kits23"]["dice_foreground"], abs=1e-5)
