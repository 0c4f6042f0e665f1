"""Every score of a predicted mask, per class: what the model says, how usual the mask is, how odd the scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from imaging.scan_quality import ScanQuality, UsualScans, scan_quality
from imaging.volume import Volume
from models.infer import Prediction
from tasks.plausibility_reference import LEAST_CASES, HumanReference, place_of
from tasks.plausibility_z import mirror_flag, missing_organs, robust_z
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace


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

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain values, for the column `scores` of the `labels` table."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def usual_scans(workspace: Workspace, at_versions: Mapping[str, int] | None = None) -> UsualScans | None:
    """Return the figures of the training cases of the lake; None where there are too few to tell what is usual."""
    versions = dict(at_versions or workspace.tables.versions())
    return _usual_scans(place_of(workspace.settings), versions["cases"])


@lru_cache(maxsize=4)
def _usual_scans(place: str, cases_version: int) -> UsualScans | None:
    workspace = open_workspace(Settings.model_validate_json(place))
    columns = ["shape_x", "shape_y", "shape_z", "spacing_mm", "original_affine"]
    cases = workspace.tables.cases(role="train", columns=columns, at_versions={"cases": cases_version})
    if len(cases) < LEAST_CASES:
        return None
    spacing = np.array([_original_spacing(affine) for affine in cases["original_affine"]])  # (n, 3)
    grid = np.array([list(value) for value in cases["spacing_mm"]])
    extent = cases[["shape_x", "shape_y", "shape_z"]].to_numpy(dtype=np.float64) * grid
    return UsualScans(len(cases), _ranges(spacing), _ranges(extent))


def _ranges(values: np.ndarray[Any, Any]) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    x, y, z = ((float(low), float(high)) for low, high in zip(values.min(axis=0), values.max(axis=0), strict=True))
    return x, y, z


def _original_spacing(affine: Sequence[float]) -> tuple[float, float, float]:
    """Return the spacing in mm along R, A, S of a raw scan, whatever order its axes have. affine: 4 x 4 by rows."""
    columns = np.array(affine, dtype=np.float64).reshape(4, 4)[:3, :3]
    sizes = np.linalg.norm(columns, axis=0)
    found = [0.0, 0.0, 0.0]
    for axis in np.argsort(-np.abs(columns / sizes).max(axis=0)):  # the clearest first
        free = [world for world in range(3) if not found[world]]
        found[max(free, key=lambda world: abs(columns[world, axis]))] = float(sizes[axis])
    return found[0], found[1], found[2]


def case_quality(
    workspace: Workspace, case: Mapping[str, Any], image: Volume, at_versions: Mapping[str, int] | None = None
) -> ScanQuality:
    """Return the quality of a case of the lake against the training cases of the tables.

    case: its row. image: HU (X, Y, Z), RAS. at_versions: of the tables, None for now.
    """
    spacing = _original_spacing(case["original_affine"])
    return scan_quality(image, spacing, usual_scans(workspace, at_versions))


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
    independent: False where the model was trained on this scan, or on its twin.
    """
    by_name = {str(row["class_name"]): row for row in rows}
    mirrored = mirror_flag(by_name)
    of_scan = quality.flags if mirrored is None else (*quality.flags, mirrored)
    missing = missing_organs(by_name, reference, quality)
    scores = {}
    for name, row in by_name.items():
        own = (missing[name],) if name in missing else ()
        scores[name] = LabelScores(
            name,
            _known(prediction.scores.mean_prob.get(name)),
            _known(prediction.scores.boundary_entropy.get(name)),
            _known(prediction.scores.agreement.get(name)),
            float(row["ml"]),
            robust_z(row, by_name, reference, quality),
            bool(row["touches_border"]),
            _removed_share(name, int(row["voxels"]), prediction),
            (*of_scan, *own),
            independent,
        )
    return scores


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _removed_share(name: str, voxels: int, prediction: Prediction) -> float:
    """Return the share of the network's own voxels that cleaning took away."""
    cleaned = prediction.cleaned
    if cleaned is None:
        return 0.0
    removed, added = cleaned.removed.get(name, 0), cleaned.added.get(name, 0)
    before = voxels + removed - added
    return removed / before if before > 0 else 0.0
