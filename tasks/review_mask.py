"""A mask that a reviewer corrected, read in the scan's own grid: NIfTI, .seg.nrrd or DICOM SEG; onto the lake's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalog.lake import Lake
from datasets_registry.card_parts import LabelValue
from datasets_registry.cards import Card, load_card
from datasets_registry.label_map import native_to_bits
from datasets_registry.taxonomy import all_classes, class_info, named_class
from imaging.bits import Bits, empty_bits
from imaging.checks import match_grid
from imaging.dicom_seg import place_segment, read_segmentation
from imaging.errors import BadInput
from imaging.nifti import read_nifti
from imaging.nrrd import SUFFIXES, read_nrrd_layers
from imaging.resample import Grid, orient_ras, resample_bits
from imaging.sides import body_midline_x
from imaging.volume import Volume
from tasks.export import original_grid

Layer = tuple[Volume, dict[int, str]]
"""A label volume on the scan's grid, and the class of each of its values."""


def read_mask(file: Path, case: Mapping[str, Any], classes: Sequence[str], lake: Lake) -> Bits:
    """Return the class bits (W, X, Y, Z) of `classes` on the lake grid of a case.

    file: .nii(.gz), whose values are the indices of the classes, as `ctfactory` exports them, or what the .json beside
    it says; .nrrd with segments named as classes; or a DICOM SEG file. It must lie on the grid of the scan as it was
    read. One voxel has one value there, so a lesion's voxels are its organ's too, a kidney's by the side of the body.
    case: its row. Raises BadInput for another grid, an unknown value or a mirrored label, ValueError for a class that
    the file cannot tell, FileNotFoundError.
    """
    where = f"{case['case_id']}, mask of the reviewer"  # not the file's name, which may tell who the patient is
    if not file.is_file():
        raise FileNotFoundError(f"--import {file}: no such file; give the corrected mask")
    grid = original_grid(dict(case))
    scan = Volume(np.zeros(grid.shape, np.uint8), grid.affine)
    names = tuple(class_info(name).name for name in classes)
    bits = empty_bits(orient_ras(scan).shape, len(all_classes()), "F")
    affine = orient_ras(scan).affine
    told: set[str] = set()
    for label, meaning in _layers(file, scan, where):
        told |= set(meaning.values())
        card = _card(meaning)
        turned = orient_ras(label)

        def midline(turned: Volume = turned) -> Any:
            return _midline(lake, case, turned)

        own = tuple(name for name in names if name in card.annotated_classes)
        bits |= native_to_bits(turned, card, None, midline_x=midline, where=where, annotated=own).bits
    if missing := [name for name in names if name not in told]:
        raise ValueError(
            f"{where}: no value or segment for {', '.join(missing)}, it has {', '.join(sorted(told)) or 'none'}; name "
            "only classes that were looked at, and keep an empty segment for one that is absent"
        )
    lake_affine = np.asarray(case["affine"], dtype=float).reshape(4, 4)
    return resample_bits(bits, affine, Grid((case["shape_x"], case["shape_y"], case["shape_z"]), lake_affine))


def _layers(file: Path, scan: Volume, where: str) -> Iterator[Layer]:
    """Give each label volume of a file, on the grid of `scan`, with the class of each value."""
    name = file.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        yield match_grid(scan, read_nifti(file, where=where), where), _values_beside(file, where)
    elif name.endswith(SUFFIXES):
        for layer, segments in read_nrrd_layers(file, where=where):
            if not segments:
                raise BadInput("no_segments", where, "an .nrrd file without named segments", "a .seg.nrrd of 3D Slicer",
                               "save it as a segmentation, or as NIfTI")  # fmt: skip
            yield match_grid(scan, layer, where), {value: _class(text, where) for value, text in segments.items()}
    else:
        for segment in read_segmentation(file, where=where):
            value = class_info(_class(segment.label or segment.meaning, where)).index
            mask = place_segment(segment, scan, where)
            yield mask.with_array(mask.array.astype(np.uint8) * np.uint8(value)), {value: all_classes()[value - 1].name}


def _values_beside(file: Path, where: str) -> dict[int, str]:
    """Return value -> class of a NIfTI: as the .json beside it says, else by index."""
    beside = file.with_name(file.name.split(".nii")[0] + ".json")
    if not beside.is_file():
        return {info.index: info.name for info in all_classes()}
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))["values"]
        return {int(value): _class(str(text), where) for value, text in values.items()}
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise _unread(where) from error
    except KeyError as error:
        raise _unread(where) from error


def _unread(where: str) -> BadInput:
    return BadInput("label_names", where, "a .json beside the mask without the names of its values",
                    '"values": {"6": "liver"}', "export the mask again, or remove the .json")  # fmt: skip


def _class(text: str, where: str) -> str:
    try:
        return named_class(text).name
    except KeyError as error:
        raise BadInput("segment_name", where, f"a segment that is no class: {error.args[0]}",
                       "segments named as classes", "rename or remove it") from error  # fmt: skip


def _card(meaning: Mapping[int, str]) -> Card:
    """Return a card whose values mean these classes, contained in their organs as in the card `local`."""
    local = load_card("local")
    by_name = {value.classes[0]: value for value in local.labels.values()}
    labels = {value: by_name.get(name, LabelValue(name=name, classes=(name,))) for value, name in meaning.items()}
    reached = {name for value in labels.values() for name in (*value.classes, *(value.split or ()))}
    fields = {field: getattr(local, field) for field in Card.model_fields}
    fields |= {"labels": labels, "annotated_classes": tuple(i.name for i in all_classes() if i.name in reached)}
    # a new card, for a copy would keep what `local` has worked out of its own values
    return Card.model_construct(**fields)


def _midline(lake: Lake, case: Mapping[str, Any], label: Volume) -> Any:
    """Return the body's middle (world x, mm) at each axial slice of a RAS label, from the scan in the lake."""
    stored = lake.open_image(case)
    image = Volume(stored.read(), stored.affine)
    middle = body_midline_x(image)
    centre = [(n - 1) / 2 for n in label.shape]
    heights = [float(label.world_mm(np.array([centre[0], centre[1], k]))[2]) for k in range(label.shape[2])]
    known = [float(image.world_mm(np.array([0.0, 0.0, k]))[2]) for k in range(image.shape[2])]
    return np.interp(heights, known, middle)
