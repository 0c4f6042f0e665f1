"""Two annotators of the same kidneys: KiTS19 against KiTS23, each figure written down as surface-distance gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imaging.metrics import match_lesions, score_masks
from imaging.nifti import read_nifti
from imaging.resample import orient_ras

pytestmark = pytest.mark.real_data

TUMOUR = 2
# DSC, NSD at 1 mm, HD95 and mean surface distance in mm, volume error in ml (KiTS23 minus KiTS19)
EXPECTED = {
    ("00005", "foreground"): (0.9399658, 0.8044969, 4.0264703, 0.9625882, -30.895233),
    ("00005", "tumour"): (0.9194946, 0.7760124, 5.7242972, 0.9395670, 4.064083),
    ("00030", "foreground"): (0.9774494, 0.8534357, 3.6523438, 0.4875939, 45.789562),
    ("00030", "tumour"): (0.9764109, 0.8141864, 2.6337425, 0.5286260, -16.826590),
    ("00165", "foreground"): (0.9803196, 0.9373667, 1.3936515, 0.3220441, -3.099108),
    ("00165", "tumour"): (0.7496516, 0.7824426, 2.2231205, 0.6942879, 0.270430),
}
# lesions of KiTS19, those KiTS23 has too, lesions of KiTS23 alone
LESIONS = {"00005": (1, 1, 0), "00030": (1, 1, 1), "00165": (1, 1, 0)}


@pytest.mark.parametrize("case", sorted(LESIONS))
def test_two_annotators_of_one_patient(real_data: Path, case: str) -> None:
    folder = real_data / f"kits_case_{case}"
    older = orient_ras(read_nifti(folder / "kits19_label.nii.gz"))
    newer = orient_ras(read_nifti(folder / "kits23_label.nii.gz"))
    x, y, z = (float(value) for value in np.linalg.norm(older.affine[:3, :3], axis=0))
    pairs = {
        "foreground": (older.array > 0, newer.array > 0),
        "tumour": (older.array == TUMOUR, newer.array == TUMOUR),
    }
    for name, masks in pairs.items():
        scores = score_masks(*masks, (x, y, z), 1.0)
        found = (scores.dsc, scores.nsd, scores.hd95_mm, scores.asd_mm, scores.volume_error_ml)
        assert found == pytest.approx(EXPECTED[case, name], abs=1e-6), name
    matches = match_lesions(*pairs["tumour"], (x, y, z))
    assert (matches.lesions, matches.lesions_found, matches.false_lesions) == LESIONS[case]
