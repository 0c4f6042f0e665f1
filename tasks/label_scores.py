"""Every score of a predicted mask, per class: what the model says, how usual the mask is, what is odd about the scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imaging.scan_quality import ScanQuality
from imaging.volume import Volume
from models.infer import Prediction
from tasks.plausibility_reference import HumanReference
from tasks.workspace import Workspace


@dataclass(frozen=True)
class LabelScores:
    """The scores of one class in one case.

    mean_prob: mean probability inside the mask as the network gave it, before cleaning; None where that is empty.
    boundary_entropy: binary entropy in bits, mean over the voxels at that mask's surface; None likewise. agreement:
    mean pairwise DSC of the members of an ensemble, or of test-time variants; None with one. ml: volume after cleaning.
    z: robust z-score by figure (volume, x, y, z, components, hu_mean, border) against human labels; a figure nothing is
    known of is left out. touches_border: the mask reaches the edge of the scan. removed_share: voxels that cleaning
    took, of those the network gave. flags: `code: words with numbers`, those of the scan first. independent: whether
    the model had not seen the scan.
    """

    class_name: str
    mean_prob: float | None
    boundary_entropy: float | None
    agreement: float | None
    ml: float
    z: dict[str, float] = field(default_factory=dict)
    touches_border: bool = False
    removed_share: float = 0.0
    flags: tuple[str, ...] = ()
    independent: bool = True


def case_quality(workspace: Workspace, case: Mapping[str, Any], image: Volume) -> ScanQuality:
    """Return the quality of a case of the lake against the training cases of the tables. image: HU (X, Y, Z), RAS."""
    raise NotImplementedError


def score_labels(
    rows: Sequence[Mapping[str, Any]],
    prediction: Prediction,
    reference: HumanReference,
    quality: ScanQuality,
    *,
    independent: bool = True,
) -> dict[str, LabelScores]:
    """Return the scores of each class of one case.

    rows: of the `labels` table, one a class, computed from the cleaned masks (`case_rows.label_rows`). prediction: by
    `predict_case`. reference: `plausibility_reference.human_reference(workspace)`. quality: by `case_quality`.
    independent: False where the model was trained on this scan, or on its twin (`seen_in_training`).
    """
    raise NotImplementedError


def seen_in_training(workspace: Workspace, case_ids: Sequence[str], trained_on: Sequence[str]) -> set[str]:
    """Return those of the cases that a model was trained on, by themselves or by a twin.

    trained_on: `registry.training_cases(version, settings)`, `lits/*` for all of a set.
    """
    raise NotImplementedError
