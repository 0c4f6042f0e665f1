"""Bring one case as a data set ships it onto the lake grid: RAS, one spacing, HU int16, class bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.label_map import LabelBits, native_to_bits
from datasets_registry.layouts import CaseFiles, RawCase
from imaging.components import bounding_box, crop, grow
from imaging.resample import Grid, grid_for, orient_ras, resample_bits, resample_image
from imaging.sides import body_midline_x
from imaging.threads import beside
from imaging.volume import Volume

HARMONISER_VERSION = "2"
"""Part of every ingest key: raise it when the output of `harmonise` changes, and the cases are ingested again."""

HU_RANGE = (-1024, 32767)
"""What the lake stores; padding below air is air. The lake's fill value, -32768, lies outside on purpose."""


@dataclass(frozen=True, eq=False)
class HarmonisedCase:
    """A case on the lake grid.

    image: (X, Y, Z) int16 HU in RAS. bits: (W, X, Y, Z) uint32 class bits, or None where the set has no labels.
    annotated: names of the classes that annotators looked for. split_status: class pair to how its sides were told.
    geometry: the original shape, affine (row-major), spacing and axis codes, and every step applied (`label_steps`: to
    the label as it was read), JSON-able.
    """

    image: Volume
    bits: NDArray[np.uint32] | None
    annotated: tuple[str, ...]
    split_status: dict[str, str]
    geometry: dict[str, Any]


def harmonise(raw: RawCase, card: Card, spacing_mm: tuple[float, float, float], files: CaseFiles) -> HarmonisedCase:
    """Return the case `files`, as read, on the axis-aligned RAS grid of `spacing_mm`: image linear, labels nearest.

    Labels become class bits before they are resampled, on the grid they were drawn on, so that sides and containment
    are decided at full resolution. Which classes are annotated is the card's say about this case. Raises BadInput
    when a label value is not declared by the card or the label is mirrored.
    """
    image = orient_ras(raw.image)
    grid = grid_for(image, spacing_mm)
    with beside() as other:
        resampled = other.submit(resample_image, image, grid)
        labelled = None if raw.label is None else _label_on_grid(raw, image, card, grid, files)
    on_grid = resampled.result()
    return HarmonisedCase(
        image=on_grid.with_array(_stored_hu(on_grid.array)),
        bits=None if labelled is None else labelled.bits,
        annotated=() if labelled is None else labelled.annotated,
        split_status={} if labelled is None else dict(labelled.split_status),
        geometry={**original_geometry(raw.image, on_grid), "label_steps": _steps_of(raw.label)},
    )


def _stored_hu(values: NDArray[Any]) -> NDArray[np.int16]:
    """Return HU as the lake stores them; int16 ones, which resampling has just made, are limited in place."""
    limited: NDArray[np.int16] = np.clip(values, *HU_RANGE, out=values if values.dtype == np.int16 else None).astype(
        np.int16, copy=False
    )
    return limited


def _label_on_grid(raw: RawCase, image: Volume, card: Card, grid: Grid, files: CaseFiles) -> LabelBits:
    """Return the class bits on `grid`; image: the raw one in RAS order.

    Only the box of the labelled voxels is worked on, with a margin wide enough that the nearest voxel of every grid
    point beyond it is background.
    """
    label = orient_ras(cast(Volume, raw.label))
    box = bounding_box(label.array) or (0, 0, 0, 1, 1, 1)
    steps = np.ceil(np.array(grid.spacing_mm) / np.array(label.spacing_mm)).astype(int) + 1
    box = grow(box, (int(steps[0]), int(steps[1]), int(steps[2])), label.shape)
    label = crop(label, box)
    labelled = native_to_bits(
        label,
        card,
        None,
        midline_x=lambda: body_midline_x(image)[box[2] : box[5]],
        where=files.where,
        annotated=card.annotated_in(files.native_id, raw.present_values),
    )
    return replace(labelled, bits=resample_bits(labelled.bits, label.affine, grid))


def original_geometry(raw: Volume, on_grid: Volume) -> dict[str, Any]:
    """Return what is needed to go back to the scan as it was read, and how the lake's form came about."""
    import nibabel

    return {
        "original_shape": list(raw.shape),
        "original_affine": raw.affine.ravel().tolist(),
        "original_spacing_mm": list(raw.spacing_mm),
        "original_orientation": "".join(nibabel.aff2axcodes(raw.affine)),
        "steps": _steps_of(on_grid),
    }


def _steps_of(volume: Volume | None) -> list[dict[str, Any]]:
    return [] if volume is None else [{"step": step.name, **step.parameters} for step in volume.steps]
