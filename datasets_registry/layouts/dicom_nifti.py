"""Layout: a DICOM series an image, a NIfTI file a label whose geometry may disagree by flips (NIH Pancreas-CT)."""

from __future__ import annotations

from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, RawCase
from datasets_registry.layouts.files import list_pairs
from datasets_registry.layouts.flips import match_by_tissue
from datasets_registry.layouts.read import join, located, read_nifti_of, with_label
from imaging.checks import match_grid
from imaging.dicom import read_series
from imaging.errors import BadInput


def list_cases(root: Path, card: Card) -> Listing:
    """Return series and label files under `root`, joined by native id; raises NoCasesFound."""
    return list_pairs(root, card, image_is_series=True)


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return image (HU) and label (native values on the image's grid) of one case; raises BadInput.

    The label follows by its affine where that agrees with the image's up to axis order and flips. Where it does not,
    and the card names a `flip_class`, the tissue under that class chooses among the eight flips.
    """
    with located(case.where, case.image):
        image = read_series(case.image)
    checked = join(image, None, card, case.where)
    if not case.label:
        return checked
    image = checked.image
    label = read_nifti_of(case.label[0], card, case.where)
    try:
        placed = match_grid(image, label, case.where)
    except BadInput as disagreement:
        if "flip_class" not in card.layout.options:
            raise
        placed = match_by_tissue(image, label, card, case.where, disagreement)
    return with_label(image, placed, card, case.where)
