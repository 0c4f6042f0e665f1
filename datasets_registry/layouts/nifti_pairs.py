"""Layout: one NIfTI file an image, one a label, joined by the native id in their paths (BTCV, KiTS, LiTS, ...)."""

from __future__ import annotations

from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, RawCase
from datasets_registry.layouts.files import list_pairs
from datasets_registry.layouts.read import join, read_nifti_of
from imaging.threads import beside


def list_cases(root: Path, card: Card) -> Listing:
    """Return the image and label pairs under `root`; raises NoCasesFound."""
    return list_pairs(root, card)


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return image (HU) and label (native values on the image's grid) of one pair; raises BadInput."""
    with beside() as other:
        # unpacking takes most of the time, and the two files do not wait for each other
        label = other.submit(read_nifti_of, case.label[0], card, case.where) if case.label else None
        image = read_nifti_of(case.image[0], card, case.where)
        return join(image, None if label is None else label.result(), card, case.where)
