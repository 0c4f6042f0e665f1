"""Hand the lake's cases to the trainer as a `PatchSource`: patches are read straight out of the Zarr shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalog.lake import Lake
from datasets_registry.taxonomy import all_classes, channels, class_info
from models.plan import TrainCase
from tasks.splits import SplitChoice, cases_to_train_on
from tasks.workspace import Workspace, row_dicts


class LakePatchSource:
    """Patches of committed cases; the third state, `unlabelled`, is every class that is not in `annotated`.

    cases: rows of the `cases` table. labels: their `labels` rows of one annotation a case, state `annotated` only.
    tumour_free: a lesion class that the case's data set states nobody has counts as annotated and absent, if it is
    annotated in some other case: a class shown only where it occurs is never learnt to be missing.
    """

    def __init__(self, lake: Lake, cases: pd.DataFrame, labels: pd.DataFrame, *, tumour_free: bool = False) -> None:
        self._lake = lake
        case_rows = {str(row["case_id"]): row for row in row_dicts(cases)}
        self._case_rows = {case_id: _only(row, "case_id", "path", "manifest") for case_id, row in case_rows.items()}
        self._label_rows: dict[str, dict[str, Any]] = {}
        foreground: dict[str, dict[int, NDArray[np.int32]]] = {}
        for row in row_dicts(labels):
            case_id = str(row["case_id"])
            kept = _only(row, "case_id", "path", "manifest", "annotation")
            first = self._label_rows.setdefault(case_id, kept)
            if first["annotation"] != row["annotation"]:
                raise ValueError(
                    f"{case_id}: labels of the annotations {first['annotation']!r} and {row['annotation']!r}, "
                    "expected one; filter the labels before training"
                )
            _require_channel(row)
            voxels = np.asarray(row["sampled_voxels"], dtype=np.int32).reshape(-1, 3)
            foreground.setdefault(case_id, {})[int(row["channel"])] = voxels
        self._learnt = {channel for channels_of_case in foreground.values() for channel in channels_of_case}
        absent = {
            case_id: self._learnt & set(channels(list(row["tumour_free"]))) if tumour_free else set()
            for case_id, row in case_rows.items()
        }
        self._cases: list[TrainCase] | None = [
            TrainCase(
                case_id=case_id,
                annotated=tuple(sorted({*foreground[case_id], *absent[case_id]})),
                shape=(int(row["shape_x"]), int(row["shape_y"]), int(row["shape_z"])),
                foreground={channel: voxels for channel, voxels in foreground[case_id].items() if len(voxels)},
                dataset=str(row["dataset"]),
            )
            for case_id, row in sorted(case_rows.items())
            if case_id in foreground
        ]

    def __getstate__(self) -> dict[str, Any]:
        # A reader process only reads; the positions of all cases would be gigabytes for each.
        return {**self.__dict__, "_cases": None}

    def cases(self) -> Sequence[TrainCase]:
        """Return the cases that carry at least one annotated class, by case id; not in a process it was sent to."""
        if self._cases is None:
            raise RuntimeError("patch source: found a copy sent to another process, which only reads; draw at home")
        return self._cases

    def annotated_classes(self) -> tuple[str, ...]:
        """Return the classes annotated in at least one case, in channel order."""
        return tuple(info.name for info in all_classes() if info.channel in self._learnt)

    def read(
        self, case_id: str, start_xyz: tuple[int, int, int], size_xyz: tuple[int, int, int]
    ) -> tuple[NDArray[np.int16], NDArray[np.uint32], tuple[slice, slice, slice]]:
        """Return image (X, Y, Z) HU, class bits (W, X, Y, Z) and the part inside the scan, of one patch."""
        labels = self._label_rows[case_id]
        image = self._lake.read_patch(self._case_rows[case_id], start_xyz, size_xyz)
        bits = self._lake.read_bits_patch(labels, labels["annotation"], start_xyz, size_xyz)
        return image.array, bits.array, image.valid


def _require_channel(row: Mapping[str, Any]) -> None:
    """Raise ValueError where the class of a label row has another bit in the class table here than in the lake."""
    channel = class_info(str(row["class_name"])).channel
    if channel != int(row["channel"]):
        raise ValueError(
            f"{row['case_id']}: {row['class_name']} lies in bit {row['channel']} of the lake, in bit {channel} by the "
            "class table here; use the table that the case was ingested with"
        )


def _only(row: Mapping[str, Any], *columns: str) -> dict[str, Any]:
    return {column: row[column] for column in columns}


def training_source(
    workspace: Workspace,
    datasets: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    choice: SplitChoice | None = None,
    at_versions: Mapping[str, int] | None = None,
) -> LakePatchSource:
    """Return the patches of the training cases of a split, human labels only.

    datasets: restrict to these; None takes every data set of role `train`. External cohorts never enter.
    classes: labels of other classes count as unlabelled; None takes every class. choice: default: all folds but the
    test. at_versions: of the tables, as an earlier run read them; default now. Raises LookupError when no such case is
    in the lake, and as `cases_to_train_on`.
    """
    choice = choice or SplitChoice()
    cases = cases_to_train_on(workspace, choice, datasets, at_versions)
    labels = workspace.tables.labels(case_ids=cases["case_id"], state="annotated", at_versions=at_versions)
    if classes is not None:
        labels = labels[labels["class_name"].isin([class_info(name).name for name in classes])]
    source = LakePatchSource(workspace.lake, cases, labels, tumour_free=workspace.settings.tumour_free_negatives)
    if not source.cases():
        raise LookupError(
            f"no training case with a human label in the lake (data sets: {', '.join(datasets or ['all'])}, "
            f"classes: {', '.join(classes or ['all'])}, held out: {choice.held_out_name}); ingest a data set first"
        )
    return source
