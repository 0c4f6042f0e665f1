"""The labels of a hospital's scan: label maps, masks, structure sets and segmentations, read by structure name.

Names of files, regions and segments can hold a person's name: none of them leaves this module.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets_registry.cards import Card
from datasets_registry.layouts.cases import CaseFiles, RawCase
from datasets_registry.layouts.local_pairs import NIFTI_SUFFIXES, NRRD_SUFFIXES, anchor_of, has_suffix, rest_of
from datasets_registry.layouts.read import located
from datasets_registry.layouts.structures import Masks, match_structures, merge_masks
from imaging.checks import check_label_values, match_grid
from imaging.dicom_header import read_header
from imaging.dicom_refs import read_references
from imaging.dicom_seg import place_segment, read_segmentation
from imaging.errors import BadInput
from imaging.nifti import read_nifti
from imaging.nrrd import nrrd_files, nrrd_segments, read_nrrd
from imaging.rtstruct import rasterise, read_structures
from imaging.volume import Step, Volume

NOTED_STEPS = {
    "ignore_contours",
    "contours_to_nearest_slice",
    "drop_contours_between_slices",
    "empty_slices_between_contours",
    "cut_contours_at_border",
    "threshold_fractional",
}
"""Repairs of a label that a person should know of when looking at the case."""


class _Found(NamedTuple):
    """One structure: the names it goes by, best first, and how to get its mask on the image's grid."""

    names: tuple[str, ...]
    mask: Callable[[], Volume]


def read_volume(path: Path, where: str) -> Volume:
    """Return a NIfTI or NRRD file, by its suffix."""
    return read_nifti(path, where=where) if has_suffix(path, NIFTI_SUFFIXES) else read_nrrd(path, where=where)


def label_files(path: Path, where: str) -> tuple[Path, ...]:
    """Return the files of one label or image: two for an NRRD whose header is detached."""
    return nrrd_files(path, where) if has_suffix(path, NRRD_SUFFIXES) else (path,)


def add_labels(raw: RawCase, case: CaseFiles, card: Card) -> RawCase:
    """Return the case with what its label files hold; `raw` is the image alone.

    Structures whose names mean no value of the card are counted in a note, and so are label maps without a card that
    gives their values a meaning (`layout.options.label_map: true`). Raises BadInput for a label that does not fit the
    image.
    """
    found: list[_Found] = []
    maps: list[Volume] = []
    unknown_maps = unknown_names = 0
    voxels_of: set[Path] = set()
    for ordinal, path in enumerate(case.label, start=1):
        where = f"{case.where}, label {ordinal}"
        with located(where, (path,), names=False):
            if path in voxels_of:
                continue
            if not has_suffix(path, (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)):
                found += _from_dicom(path, case, raw.image, where)
                continue
            voxels_of.update(label_files(path, where)[1:])
            rest = rest_of(path, anchor_of(case.image))
            if has_suffix(path, NRRD_SUFFIXES) and (names := nrrd_segments(path, where)):
                found += _from_slicer(path, names, raw.image, where)
            elif rest:
                found.append(_Found(("_".join(rest), path.name.split(".")[0]), _mask_reader(path, raw.image, where)))
            elif card.layout.options.get("label_map") is True:
                placed = match_grid(raw.image, read_volume(path, where), where)
                maps.append(check_label_values(placed, card.value_names, where))
            else:
                unknown_maps += 1
    by_value: dict[int, list[_Found]] = defaultdict(list)
    with located(case.where, case.label, names=False):
        for structure in found:
            value = _value_of(structure, card)
            if value is None:
                unknown_names += 1
            else:
                by_value[value].append(structure)
    notes = _notes(case.where, unknown_maps, unknown_names, sum(len(one) > 1 for one in by_value.values()))
    if len(maps) > 1:
        raise BadInput("ambiguous_label", case.where, f"{len(maps)} label maps for one scan", "one label map",
                       "keep the one that counts beside the scan")  # fmt: skip
    if not maps and not by_value:
        return replace(raw, notes=(*raw.notes, *notes))
    with located(case.where, case.label, names=False):
        merged = merge_masks(raw.image, _masks(by_value), card, case.where, base=maps[0] if maps else None)
    if maps and card.annotation_rule == "declared":
        merged = replace(merged, present_values=None)  # such a label map speaks of every value
    notes += [f"{case.where}: {step.as_json()}" for step in label_steps(merged) if step.name in NOTED_STEPS]
    return replace(merged, notes=(*raw.notes, *merged.notes, *notes))


def label_steps(raw: RawCase) -> tuple[Step, ...]:
    """Return what was done to the label of a case."""
    return () if raw.label is None else raw.label.steps


def _masks(by_value: dict[int, list[_Found]]) -> Masks:
    for value, structures in sorted(by_value.items()):
        for structure in structures:
            yield value, structure.mask()


def _value_of(structure: _Found, card: Card) -> int | None:
    for name in structure.names:
        found, _ = match_structures([name], card)
        if found:
            return next(iter(found))
    return None


def _notes(where: str, unknown_maps: int, unknown_names: int, united: int) -> list[str]:
    notes = []
    if unknown_maps:
        notes.append(f"{where}: {unknown_maps} label maps left out: values mean nothing without a card")
    if unknown_names:
        notes.append(f"{where}: {unknown_names} structures left out, their names mean no class of the card")
    if united:
        notes.append(f"{where}: {united} classes are drawn by several structures, which were united")
    return notes


def _mask_reader(path: Path, image: Volume, where: str) -> Callable[[], Volume]:
    def read() -> Volume:
        mask = match_grid(image, read_volume(path, where), where)
        values = np.unique(mask.array)
        others = values[values != 0]
        if len(others) > 1 or not np.array_equal(values, np.rint(values)):
            raise BadInput("mask_values", where, f"{len(others)} values other than 0 in the mask of one structure",
                           "0 and one other whole number", "give one binary mask for each structure")  # fmt: skip
        return mask

    return read


def _from_slicer(path: Path, names: dict[int, str], image: Volume, where: str) -> list[_Found]:
    placed = check_label_values(match_grid(image, read_nrrd(path, where=where), where), names.keys(), where)
    return [_Found((name,), partial(_voxels_of, placed, value)) for value, name in names.items()]


def _voxels_of(label: Volume, value: int) -> Volume:
    return label.with_array(label.array == value)


def _from_dicom(path: Path, case: CaseFiles, image: Volume, where: str) -> list[_Found]:
    """Return the structures of an RTSTRUCT or SEG file that hold anything; an empty one says nothing of an organ."""
    frame = str(read_header(case.image[0], 1).fields.get("FrameOfReferenceUID") or "")
    if read_references(path, where).kind == "RTSTRUCT":
        return [
            _Found((one.name,), partial(rasterise, one, image, where, image_frame_uid=frame))
            for one in read_structures(path, where=where)
            if one.contours
        ]
    return [
        _Found((one.label, one.meaning), partial(place_segment, one, image, where, image_frame_uid=frame))
        for one in read_segmentation(path, where=where)
        if one.planes
    ]
