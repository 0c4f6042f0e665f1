"""Bring one case as a data set ships it onto the lake grid: RAS, one spacing, HU int16, class bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.label_map import native_to_bits
from datasets_registry.layouts import RawCase
from imaging.checks import check_hu
from imaging.resample import grid_for, orient_ras, resample_bits, resample_image
from imaging.volume import Volume

HARMONISER_VERSION = "1"
"""Part of every ingest key: raise it when the output of `harmonise` changes, and the cases are ingested again."""

HU_RANGE = (-1024, 32767)
"""What the lake stores; padding below air is air. The lake's fill value, -32768, lies outside on purpose."""


@dataclass(frozen=True, eq=False)
class HarmonisedCase:
    """A case on the lake grid.

    image: (X, Y, Z) int16 HU in RAS. bits: (W, X, Y, Z) uint32 class bits, or None where the set has no labels.
    annotated: names of the classes that annotators looked for. split_status: class pair to how its sides were told.
    geometry: the original shape, affine (row-major), spacing and axis codes, and every step applied, JSON-able.
    """

    image: Volume
    bits: NDArray[np.uint32] | None
    annotated: tuple[str, ...]
    split_status: dict[str, str]
    geometry: dict[str, Any]


def harmonise(raw: RawCase, card: Card, spacing_mm: tuple[float, float, float], where: str) -> HarmonisedCase:
    """Return `raw` on the axis-aligned RAS grid of `spacing_mm`: image linear, labels nearest.

    Labels become class bits before they are resampled, on the grid they were drawn on, so that sides and containment
    are decided at full resolution. Raises BadInput (naming `where`) when values cannot be HU or a label value is not
    declared by the card.
    """
    check_hu(raw.image, where)
    image = orient_ras(raw.image)
    grid = grid_for(image, spacing_mm)
    bits: NDArray[np.uint32] | None = None
    annotated: tuple[str, ...] = ()
    split_status: dict[str, str] = {}
    if raw.label is not None:
        labelled = native_to_bits(orient_ras(raw.label), card, image, where=where)
        bits = resample_bits(labelled.bits, image.affine, grid)
        annotated, split_status = labelled.annotated, labelled.split_status
    on_grid = resample_image(image, grid)
    clipped = np.clip(on_grid.array, *HU_RANGE).astype(np.int16)
    return HarmonisedCase(
        image=on_grid.with_array(clipped),
        bits=bits,
        annotated=tuple(annotated),
        split_status=dict(split_status),
        geometry=original_geometry(raw.image, on_grid),
    )


def original_geometry(raw: Volume, on_grid: Volume) -> dict[str, Any]:
    """Return what is needed to go back to the scan as it was read, and how the lake's form came about."""
    import nibabel

    return {
        "original_shape": list(raw.shape),
        "original_affine": raw.affine.ravel().tolist(),
        "original_spacing_mm": list(raw.spacing_mm),
        "original_orientation": "".join(nibabel.aff2axcodes(raw.affine)),
        "steps": [{"step": step.name, **step.parameters} for step in on_grid.steps],
    }
