"""Masks of single structures, for sets that ship one file or folder each: classes, lobes of the lung, bones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.miniatures.native_label import native_label
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel

Mask = NDArray[np.bool_]

SHAPES_OF: dict[str, tuple[str, ...]] = {
    "femur_right": ("right_head", "right_neck", "right_femur"),
    "femur_left": ("left_head", "left_neck", "left_femur"),
    "hip_right": ("right_ilium", "right_acetabulum", "right_pubis", "right_ischium"),
    "hip_left": ("left_ilium", "left_acetabulum", "left_pubis", "left_ischium"),
    "vertebrae_L1": ("L1_body", "L1_arch", "L1_spinous", "L1_transverse"),
    "vertebrae_L3": ("L3_body", "L3_arch", "L3_spinous", "L3_transverse"),
    "heart": ("heart",),
    "iliopsoas_right": ("right_psoas", "right_iliacus"),
    "iliopsoas_left": ("left_psoas", "left_iliacus"),
    "autochthon_right": ("right_back_muscle",),
    "autochthon_left": ("left_back_muscle",),
    "sacrum": ("S1", "S3"),
    "bone": ("L1_body", "L2_body", "L3_body", "L4_body", "L5_body", "S1", "S3", "right_ilium", "left_ilium"),
    "skin": ("skin",),
}
"""Structures without a class -> names of the phantom's shapes that form them; nothing painted later is cut out."""


def class_mask(scan: Scan, name: str) -> Mask:
    """Return the mask (X, Y, Z) of a class of the taxonomy."""
    return get_channel(scan.bits, class_info(name).channel)


def shape_mask(scan: Scan, structure: str) -> Mask:
    """Return the mask (X, Y, Z) of a structure of `SHAPES_OF`."""
    grid = scan.anatomy.body.on_grid(scan.image.shape, scan.true_affine)
    mask: Mask = np.zeros(scan.image.shape, dtype=bool)
    for item in scan.anatomy.shapes:
        if item.name in SHAPES_OF[structure]:
            for piece in item.solid.pieces():
                box = grid.box(*piece.bounds())
                if box is not None:
                    mask[box] |= piece.inside(grid.x[box], grid.y[box], grid.z[box])
    return mask


def masks_by_name(scan: Scan, card: Card) -> dict[str, Mask]:
    """Return the mask of every structure that the card declares, without overlap: a cyst's voxels are no kidney.

    Lobes of a lung divide its class between them.
    """
    label = native_label(scan.bits, card)
    masks = {meaning.name: label == value for value, meaning in card.labels.items()}
    for side in ("right", "left"):
        lobes = [name for name in masks if name.startswith("lung_") and name.endswith(f"_lobe_{side}")]
        masks |= _lobes(scan, side, lobes)
    return masks


def _lobes(scan: Scan, side: str, names: list[str]) -> dict[str, Mask]:
    """Return the lobes of one lung: an oblique fissure behind, and in front of it a level one on the right."""
    lung = class_mask(scan, f"{side}_lung")
    grid = scan.anatomy.body.on_grid(scan.image.shape, scan.true_affine)
    lower = lung & (grid.z - 0.9 * grid.y < 165)
    middle = lung & ~lower & (grid.z < 188)
    parts = {"lower": lower, "middle": middle, "upper": lung & ~lower & ~middle}
    if not any("middle" in name for name in names):
        parts["upper"] = lung & ~lower
    return {name: parts[name.split("_")[1]] for name in names}
