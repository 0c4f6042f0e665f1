"""Layout: one NIfTI an image, one binary NIfTI a structure, read by file name (TotalSegmentator's data set)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, RawCase
from datasets_registry.layouts.files import list_pairs
from datasets_registry.layouts.read import join, located, read_nifti_of
from datasets_registry.layouts.structures import Masks, match_structures, merge_masks
from imaging.checks import match_grid
from imaging.errors import BadInput
from imaging.volume import Volume


def list_cases(root: Path, card: Card) -> Listing:
    """Return images with the masks that the card declares, in order of its values; raises NoCasesFound.

    A structure without a file is a problem, unless the card calls it optional or its rule is that only present
    structures were looked for. Other masks are left alone.
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
    checked = join(read_nifti_of(case.image[0], card, case.where), None, card, case.where)
    if not case.label:
        return checked
    return merge_masks(checked.image, _masks(case, checked.image, card), card, case.where)


def _masks(case: CaseFiles, image: Volume, card: Card) -> Masks:
    for value, paths in _by_value(case, card).items():
        for path in paths:
            mask = read_nifti_of(path, card, case.where)
            with located(f"{case.where} ({path.name})"):
                placed = match_grid(image, mask, case.where)
            yield value, placed


def _by_value(case: CaseFiles, card: Card) -> dict[int, list[Path]]:
    by_name = {path.name.removesuffix(".gz").removesuffix(".nii"): path for path in case.label}
    with located(case.where):
        found, _ = match_structures(by_name, card)
    return {value: [by_name[name] for name in names] for value, names in found.items()}


def _declared_masks(case: CaseFiles, card: Card) -> tuple[Path, ...]:
    if not case.label:
        return ()
    found = _by_value(case, card)
    may_lack = card.annotation_rule == "present"
    missing = [
        label.name for value, label in card.labels.items() if value not in found and not (label.optional or may_lack)
    ]
    if missing:
        raise BadInput(
            "label_missing",
            case.where,
            f"no mask for {', '.join(missing)}",
            "one file for every structure that the card declares",
            "fetch the case again",
        )
    return tuple(path for paths in found.values() for path in paths)
