"""Layout: a DICOM series an image, a stack of PNG masks a label, one PNG a slice (CHAOS)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, RawCase
from datasets_registry.layouts.files import list_pairs
from datasets_registry.layouts.read import join, located
from imaging.dicom import position_order, read_series
from imaging.errors import BadInput
from imaging.png_stack import read_png_stack
from imaging.volume import Volume


def list_cases(root: Path, card: Card) -> Listing:
    """Return series and PNG stacks under `root`, both in natural order of file names; raises NoCasesFound."""
    return list_pairs(root, card, image_is_series=True, label_is_stack=True)


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return image (HU) and label of one case; raises BadInput.

    The k-th PNG by name belongs to the k-th DICOM file by name. Only then are both ordered by position, since file
    names may run against it.
    """
    with located(case.where, (*case.image, *case.label)):
        image = read_series(case.image)
    return join(image, _label(case, card, image) if case.label else None, card, case.where)


def _label(case: CaseFiles, card: Card, image: Volume) -> Volume:
    """Return the PNG stack on the image's grid, any value other than 0 replaced by option `nonzero_value`."""
    if len(case.label) != len(case.image):
        raise BadInput(
            "label_slices",
            case.where,
            f"{len(case.label)} PNG masks for {len(case.image)} DICOM slices",
            "one PNG a slice, in the same order of names",
            "fetch the case again",
        )
    with located(case.where, (*case.image, *case.label)):
        stack = read_png_stack(case.label)  # (rows, columns, files)
        order = position_order(case.image)
    columns_first = stack[:, :, order].transpose(1, 0, 2)  # (X: column, Y: row, Z: slice), the axes of a read series
    if columns_first.shape != image.shape:
        raise BadInput(
            "label_shape",
            case.where,
            f"PNG stack of {columns_first.shape} (columns, rows, slices)",
            f"the series' {image.shape}",
            "a slice was dropped or resampled on reading: repair the series, since its masks cannot follow",
        )
    return _foreground(image.with_array(columns_first), card)


def _foreground(label: Volume, card: Card) -> Volume:
    value = card.layout.options.get("nonzero_value")
    found: NDArray[np.uint8] = np.unique(label.array)
    if value is None or set(found.tolist()) <= {0, value}:
        return label
    foreground = np.where(label.array != 0, np.uint8(value), np.uint8(0))
    return label.with_array(foreground).with_step("foreground", png_values=found.tolist(), value=value)
