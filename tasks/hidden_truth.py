"""Score exported masks of a miniature cohort against the full truth that no other step has seen."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import get_channel
from imaging.metrics import dice
from tasks.prefect_task import as_task
from tasks.pseudo_label_case import PseudoLabelOutcome


def score_exports(outcomes: list[PseudoLabelOutcome], truth_folder: Path) -> pd.DataFrame:
    """Return DSC per case and class of the exported NIfTI files, on each scan's own grid.

    truth_folder: holds `<case id>.npz` with `bits` (W, X, Y, Z) and `affine` on the scan's own grid.
    Only classes the model was asked for are scored. Raises ValueError
    when an export does not lie on the grid of its scan, which would make every score meaningless.
    """
    rows = []
    for outcome in outcomes:
        if outcome.segmentation is None:
            continue
        with np.load(truth_folder / f"{outcome.case_id}.npz") as stored:
            bits, affine = stored["bits"], stored["affine"]
        exported = nibabel.load(outcome.segmentation)
        if exported.shape != bits.shape[1:] or not np.allclose(exported.affine, affine, atol=1e-3):
            raise ValueError(
                f"{outcome.segmentation}: grid {exported.shape} {exported.affine.tolist()}, "
                f"expected the scan's {bits.shape[1:]} {affine.tolist()}"
            )
        label = np.asarray(exported.dataobj)
        for name in outcome.classes:
            info = class_info(name)
            # The file shows the most specific class of a voxel, so an organ is compared with its lesions added back.
            inside = [other.index for other in all_classes() if name in other.parents and other.name in outcome.classes]
            mask = np.isin(label, [info.index, *inside])
            score = dice(get_channel(bits, info.channel), mask)
            rows.append({"case_id": outcome.case_id, "class_name": name, "dsc": score})
    return pd.DataFrame(rows, columns=["case_id", "class_name", "dsc"])


def mean_organ_dsc(scores: pd.DataFrame) -> float:
    """Return the mean over organ classes (lesions left out) of each class's mean DSC."""
    organs = [info.name for info in all_classes() if not info.is_lesion]
    return float(scores[scores["class_name"].isin(organs)].groupby("class_name")["dsc"].mean().mean())


score_exports_task = as_task(score_exports, "score-exports")
