"""Layout: a DICOM series an image, a folder of DICOM slices a structure, read by folder name (3D-IRCADb)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, Listing, RawCase
from datasets_registry.layouts.files import list_pairs, natural_key
from datasets_registry.layouts.read import join, located
from datasets_registry.layouts.structures import Masks, match_structures, merge_masks
from imaging.dicom import position_order, read_series
from imaging.dicom_masks import MaskSlice, place_slices, read_mask_slice
from imaging.errors import BadInput
from imaging.volume import Volume


def list_cases(root: Path, card: Card) -> Listing:
    """Return series with the files of all their structure folders; raises NoCasesFound."""
    return list_pairs(root, card, image_is_series=True, label_is_tree=True)


def read_case(case: CaseFiles, card: Card) -> RawCase:
    """Return image (HU) and one label that holds each structure under its value; raises BadInput.

    Foreground is what is not 0. A mask's slices are placed by ImagePositionPatient; where no slice of a structure has
    one, the k-th mask file by name belongs to the k-th image file by name. Every structure must have as many slices as
    the image has. Folders that mean no value of the card are named in a note.
    """
    with located(case.where, case.image):
        image = read_series(case.image)
    checked = join(image, None, card, case.where)
    if not case.label:
        return checked
    folders: dict[str, list[Path]] = defaultdict(list)
    for path in case.label:
        folders[path.parent.name].append(path)
    with located(case.where):
        found, unmatched = match_structures(folders, card)
    raw = merge_masks(checked.image, _masks(case, checked.image, found, folders, card), card, case.where)
    if not unmatched:
        return raw
    listed = ", ".join(sorted(unmatched))
    return replace(raw, notes=(*raw.notes, f"{case.where}: structures without a meaning in the card: {listed}"))


def _masks(
    case: CaseFiles, image: Volume, found: dict[int, list[str]], folders: dict[str, list[Path]], card: Card
) -> Masks:
    for value, names in found.items():
        for name in names:
            where = f"{case.where} ({name})"
            if not card.labels[value].reached:  # known and without a class: need not be read
                yield value, image.with_array(np.zeros(image.shape, dtype=bool))
                continue
            files = sorted(folders[name], key=lambda path: natural_key(path.name))
            with located(where, files):
                yield value, _read_structure(files, case, image, where)


def _read_structure(files: list[Path], case: CaseFiles, image: Volume, where: str) -> Volume:
    if len(files) != len(case.image):
        raise BadInput("label_slices", where, f"{len(files)} mask slices for {len(case.image)} image slices",
                       "one mask for every slice", "fetch the case again")  # fmt: skip
    slices = [read_mask_slice(path, ordinal, where) for ordinal, path in enumerate(files, start=1)]
    if any(one.position is not None for one in slices):
        return place_slices(slices, image, where)
    return _by_name(slices, case, image, where)


def _by_name(slices: list[MaskSlice], case: CaseFiles, image: Volume, where: str) -> Volume:
    """Return the mask whose k-th file by name belongs to the image's k-th file by name."""
    shapes = {one.inside.shape for one in slices}
    # (X: column, Y: row, Z: slice towards superior), the axes of a read series
    if shapes != {image.shape[1::-1]} or image.shape[2] != len(slices):
        raise BadInput("label_shape", where, f"{len(slices)} masks of {sorted(shapes)} rows and columns, no positions",
                       f"the series' {image.shape} (columns, rows, slices)",
                       "a slice was dropped or resampled on reading: repair the series")  # fmt: skip
    # the image's files were listed in natural order of names too, so both orders tell the same slice
    ordered: list[NDArray[np.bool_]] = [slices[index].inside.T for index in position_order(case.image)]
    return image.with_array(np.stack(ordered, axis=-1)).with_step("order_masks_by_name", slices=len(slices))
