"""Hand the lake's cases to the trainer as a `PatchSource`: patches are read straight out of the Zarr shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalog.lake import Lake
from datasets_registry.taxonomy import all_classes, channels, class_info
from imaging.bits import WORD_BITS
from models.plan import TrainCase
from tasks.pseudo_choice import PseudoChoice, lineage, pseudo_labels_to_learn
from tasks.splits import SplitChoice, cases_to_train_on
from tasks.workspace import Workspace, row_dicts


@dataclass(frozen=True, eq=False)
class _Stored:
    """Where a patch source reads some classes of a case. row: what the lake needs to open the annotation.

    words: (W, 1, 1, 1) uint32 with the bit of each class that is taken from it; None: all of it.
    """

    row: dict[str, Any]
    words: NDArray[np.uint32] | None


class LakePatchSource:
    """Patches of committed cases; the third state, `unlabelled`, is every class that is not in `annotated`.

    cases: rows of the `cases` table. labels: their `labels` rows, state `annotated` only. pseudo: rows of pseudo-labels
    to learn from too, with the column `reviewed` (`queries.labels_to_learn`); a class that labels have there, or that
    the case's data set states to be absent, is left out. Where no person looked at one, it is among `pseudo` of the
    case. The classes of a case may come from several annotations: each is read, and gives its own bits alone.
    tumour_free: a lesion class that the case's data set states nobody has counts as annotated and absent, if it is
    annotated in some other case: a class shown only where it occurs is never learnt to be missing.
    ValueError for two labels of one class in a case. `lineage`: of each annotation of `pseudo` that is learnt from,
    who made it (`tasks.pseudo_choice.lineage`).
    """

    def __init__(
        self,
        lake: Lake,
        cases: pd.DataFrame,
        labels: pd.DataFrame,
        pseudo: pd.DataFrame | None = None,
        *,
        tumour_free: bool = False,
    ) -> None:
        self._lake = lake
        case_rows = {str(row["case_id"]): row for row in row_dicts(cases)}
        self._case_rows = {case_id: _only(row, "case_id", "path", "manifest") for case_id, row in case_rows.items()}
        foreground: dict[str, dict[int, NDArray[np.int32]]] = {}
        parts: dict[str, dict[str, tuple[dict[str, Any], set[int]]]] = {}
        by_model: dict[str, set[int]] = {}
        used: list[dict[str, Any]] = []
        stated = {case_id: set(channels(list(row["tumour_free"]))) for case_id, row in case_rows.items()}

        def add(row: dict[str, Any]) -> None:
            case_id, channel = str(row["case_id"]), int(row["channel"])
            _require_channel(row)
            if channel in foreground.setdefault(case_id, {}):
                raise ValueError(
                    f"{case_id}: two labels of {row['class_name']}, expected one; filter the labels before training"
                )
            foreground[case_id][channel] = np.asarray(row["sampled_voxels"], dtype=np.int32).reshape(-1, 3)
            kept = _only(row, "case_id", "path", "manifest", "annotation")
            parts.setdefault(case_id, {}).setdefault(row["annotation"], (kept, set()))[1].add(channel)

        for row in row_dicts(labels):
            add(row)
        for row in [] if pseudo is None else row_dicts(pseudo):
            case_id, channel = str(row["case_id"]), int(row["channel"])
            if channel in foreground.get(case_id, {}) or (tumour_free and channel in stated.get(case_id, ())):
                continue
            add(row)
            used.append(row)
            if not row["reviewed"]:
                by_model.setdefault(case_id, set()).add(channel)
        self._stored = {case_id: _stored(list(found.values())) for case_id, found in parts.items()}
        self.lineage = lineage(used)
        self._learnt = {channel for channels_of_case in foreground.values() for channel in channels_of_case}
        self._cases: list[TrainCase] | None = [
            TrainCase(
                case_id=case_id,
                annotated=tuple(
                    sorted({*foreground[case_id], *(self._learnt & stated[case_id] if tumour_free else ())})
                ),
                shape=(int(row["shape_x"]), int(row["shape_y"]), int(row["shape_z"])),
                foreground={channel: voxels for channel, voxels in foreground[case_id].items() if len(voxels)},
                dataset=str(row["dataset"]),
                pseudo=tuple(sorted(by_model.get(case_id, ()))),
            )
            for case_id, row in sorted(case_rows.items())
            if case_id in foreground
        ]

    def __getstate__(self) -> dict[str, Any]:
        # A reader process only reads; the positions of all cases would be gigabytes for each.
        return {**self.__dict__, "_cases": None, "lineage": []}

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
        image = self._lake.read_patch(self._case_rows[case_id], start_xyz, size_xyz)
        bits = None
        for part in self._stored[case_id]:
            found = self._lake.read_bits_patch(part.row, part.row["annotation"], start_xyz, size_xyz).array
            if part.words is not None:  # several: none may show what another one is asked for
                found = found & part.words[: len(found)]
            bits = found if bits is None else _either(bits, found)
        if bits is None:
            raise KeyError(f"{case_id}: no label of it in this patch source")
        return image.array, bits, image.valid


def _stored(parts: Sequence[tuple[dict[str, Any], set[int]]]) -> tuple[_Stored, ...]:
    if len(parts) == 1:
        return (_Stored(parts[0][0], None),)
    return tuple(_Stored(row, _selector(own)) for row, own in parts)


def _selector(own: Collection[int]) -> NDArray[np.uint32]:
    """Return words (W, 1, 1, 1) with the bits of these channels set."""
    words = np.zeros((max(own) // WORD_BITS + 1, 1, 1, 1), np.uint32)
    for channel in own:
        words[channel // WORD_BITS] |= np.uint32(1) << np.uint32(channel % WORD_BITS)
    return words


def _either(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return bits (W, X, Y, Z) set in either; annotations of different ages may differ in words."""
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    joined = long.copy()
    joined[: len(short)] |= short
    return joined


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
    pseudo: PseudoChoice | None = None,
) -> LakePatchSource:
    """Return the patches of the training cases of a split: human labels, and pseudo-labels where they are asked for.

    datasets: restrict to these; None takes every data set of role `train`. External cohorts enter by `pseudo` alone,
    where they are named, and with pseudo-labels alone. classes: labels of other classes count as unlabelled; None takes
    every class. choice: default: all folds but the test. at_versions: of the tables, as an earlier run read them;
    default now. Raises LookupError when no such case is in the lake, and as `cases_to_train_on` and
    `pseudo_labels_to_learn`.
    """
    choice = choice or SplitChoice()
    cases = cases_to_train_on(workspace, choice, datasets, at_versions)
    labels = workspace.tables.labels(case_ids=cases["case_id"], state="annotated", at_versions=at_versions)
    made = None
    if pseudo is not None:
        added = pseudo_labels_to_learn(workspace, pseudo, choice, cases, at_versions)
        cases, made = added.cases, _of_classes(added.labels, classes)
    source = LakePatchSource(
        workspace.lake,
        cases,
        _of_classes(labels, classes),
        made,
        tumour_free=workspace.settings.tumour_free_negatives,
    )
    if not source.cases():
        raise LookupError(
            f"no training case with a human label in the lake (data sets: {', '.join(datasets or ['all'])}, "
            f"classes: {', '.join(classes or ['all'])}, held out: {choice.held_out_name}); ingest a data set first"
        )
    return source


def _of_classes(labels: pd.DataFrame, classes: Sequence[str] | None) -> pd.DataFrame:
    if classes is None:
        return labels
    return labels[labels["class_name"].isin([class_info(name).name for name in classes])]
