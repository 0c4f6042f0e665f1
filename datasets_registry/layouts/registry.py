"""The list of readers: one module for each kind of file layout."""

from __future__ import annotations

from datasets_registry.cards import Card
from datasets_registry.layouts import dicom_masks, dicom_nifti, dicom_png, local, msd, nifti_masks, nifti_pairs
from datasets_registry.layouts.cases import Reader

READERS: dict[str, Reader] = {
    "nifti_pairs": nifti_pairs,
    "nifti_masks": nifti_masks,
    "msd": msd,
    "dicom_nifti": dicom_nifti,
    "dicom_png": dicom_png,
    "dicom_masks": dicom_masks,
    "local": local,
}


def reader_for(card: Card) -> Reader:
    """Return the reader that the card's layout names; a KeyError lists the known ones."""
    try:
        return READERS[card.layout.reader]
    except KeyError:
        known = ", ".join(READERS)
        raise KeyError(f"card {card.id}: no reader {card.layout.reader!r}; known: {known}") from None
