"""Whether a folder is the data set that its card describes, told from all labels together before a case is read."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing
from datasets_registry.layouts.read import read_nifti_of
from imaging.errors import BadInput
from imaging.volume import Volume

ReadLabel = Callable[[CaseFiles], Volume]
"""Gives the native label of a case, values unchecked; raises BadInput where the file cannot be read."""


def check_set(listing: Listing, card: Card, read_label: ReadLabel | None = None) -> None:
    """Raise BadInput `wrong_archive` when the labels of a folder cannot be those of the card's data set.

    Cards without a guard pass unread. read_label: default reads the first label file as NIfTI, without the checks on
    values that would refuse the cases one by one and hide that all of them are from elsewhere. A label that cannot be
    read is left to the reader of its case.
    """
    guard = card.guard
    if guard is None:
        return
    read = read_label or (lambda files: read_nifti_of(files.label[0], card, files.where))
    volumes_ml: dict[int, list[float]] = {value: [] for value in guard.max_median_ml}
    for files in listing.cases:
        if not files.label:
            continue
        try:
            label = read(files)
        except BadInput:
            continue
        counts = dict(zip(*np.unique(label.array, return_counts=True), strict=True))
        for value in guard.forbidden_values:
            if value in counts:
                found = f"value {value} in {files.where} ({counts[value]} voxels)"
                raise _wrong_archive(card, found, f"values {sorted(card.labels)}")
        for value, volumes in volumes_ml.items():
            if value in counts:
                volumes.append(float(counts[value] * label.voxel_ml))
    for value, limit in guard.max_median_ml.items():
        if volumes_ml[value] and median(volumes_ml[value]) > limit:
            found = (
                f"value {value} ({card.labels[value].name if value in card.labels else 'undeclared'}) of "
                f"{median(volumes_ml[value]):.1f} ml in the median of {len(volumes_ml[value])} labels"
            )
            raise _wrong_archive(card, found, f"at most {limit:g} ml")


def _wrong_archive(card: Card, found: str, expected: str) -> BadInput:
    reason = card.guard.reason if card.guard is not None else ""
    return BadInput(
        "wrong_archive",
        card.id,
        found,
        f"{expected} ({reason})",
        "nothing of this folder was read; fetch the archive that the card names, or read the folder under the card of "
        "the set that it is",
    )
