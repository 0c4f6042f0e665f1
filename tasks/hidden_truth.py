"""Score exported masks of a miniature cohort against the full truth that no other step has seen."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from datasets_registry.cards import load_card
from datasets_registry.layouts import reader_for
from datasets_registry.miniatures import read_truth
from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import get_channel
from imaging.metrics import dice
from tasks.prefect_task import as_task
from tasks.pseudo_label import PseudoLabelOutcome


def score_exports(outcomes: list[PseudoLabelOutcome], truth: dict[str, Path]) -> pd.DataFrame:
    """Return DSC per case and class of the exported NIfTI files, on each scan's own grid.

    truth: case id to the file of its hidden truth. Only classes the model was asked for are scored. Raises ValueError
    when an export does not lie on the grid of its scan, which would make every score meaningless.
    """
    rows = []
    for outcome in outcomes:
        if outcome.segmentation is None:
            continue
        bits, affine = read_truth(truth[outcome.case_id])
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


def truth_of_cohort(cohort: str, raw: Path, truth_folder: Path) -> dict[str, Path]:
    """Return case id to hidden-truth file for an external miniature cohort.

    Cases enter the lake under pseudonyms; the truth is named after the raw folder, which only the miniature knows.
    """
    listing = reader_for(load_card("local")).list_cases(raw, load_card("local"))
    return {
        f"{cohort}/{case.native_id}": truth_folder / cohort / f"{case.image[0].parent.name}.npz"
        for case in listing.cases
    }


def mean_organ_dsc(scores: pd.DataFrame) -> float:
    """Return the mean over organ classes (lesions left out) of each class's mean DSC."""
    organs = [info.name for info in all_classes() if not info.is_lesion]
    return float(scores[scores["class_name"].isin(organs)].groupby("class_name")["dsc"].mean().mean())


score_exports_task = as_task(score_exports, "score-exports")
