"""Layout: one NIfTI an image, one binary NIfTI a structure, read by file name (TotalSegmentator's data set)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, RawCase
from datasets_registry.layouts.files import list_pairs
from datasets_registry.layouts.read import join, located, read_nifti_of, with_label
from imaging.checks import match_grid
from imaging.errors import BadInput


def list_cases(root: Path, card: Card) -> Listing:
    """Return images with the masks that the card declares, in order of its values; raises NoCasesFound.

    A structure without a file is a problem: nobody knows whether it was looked for. Other masks are left alone.
    """
    listing = list_pairs(root, card, label_is_stack=True)
    cases: list[CaseFiles] = []
    problems = list(listing.problems)
    for case in listing.cases:
        try:
            cases.append(replace(case, label=_declared_masks(case, card)))
        except BadInput as problem:
            problems.append((case.native_id, problem))
    return replace(listing, cases=tuple(cases), problems=tuple(problems))


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return image (HU) and one label that holds each mask under its value; raises BadInput.

    Where masks overlap, the higher value wins and a note gives the count of voxels.
    """
    image = read_nifti_of(case.image[0], card, case.where)
    checked = join(image, None, card, case.where)
    if not case.label:
        return checked
    image = checked.image
    merged: NDArray[np.uint8] = np.zeros(image.shape, dtype=np.uint8)
    overlapping = 0
    for value, path in zip(sorted(card.labels), case.label, strict=True):
        mask = read_nifti_of(path, card, case.where)
        with located(f"{case.where} ({path.name})"):
            inside = match_grid(image, mask, case.where).array != 0
        overlapping += int(np.count_nonzero(merged[inside]))
        merged[inside] = value
    raw = with_label(image, image.with_array(merged), card, case.where)
    if overlapping == 0:
        return raw
    note = f"{case.where}: {overlapping} voxels lie in two masks, the higher value was kept"
    return replace(raw, notes=(*raw.notes, note))


def _declared_masks(case: CaseFiles, card: Card) -> tuple[Path, ...]:
    if not case.label:
        return ()
    by_name = {path.name.removesuffix(".gz").removesuffix(".nii"): path for path in case.label}
    missing = [label.name for label in card.labels.values() if label.name not in by_name]
    if missing:
        raise BadInput(
            "label_missing",
            case.where,
            f"no mask for {', '.join(missing)}",
            "one file for every structure that the card declares",
            "fetch the case again",
        )
    return tuple(by_name[card.labels[value].name] for value in sorted(card.labels))
