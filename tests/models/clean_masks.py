"""Tiny class bits for the tests of cleaning: boxes by name, cleaned on an anisotropic grid with its middle known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets_registry.class_rules import rule_switches
from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, empty_bits, get_channel, set_channel
from models.cleaned import Cleaned
from models.postprocess import clean

Boxes = Sequence[tuple[slice, slice, slice]]

SHAPE = (12, 7, 5)
SPACING_MM = (2.0, 3.0, 5.0)  # a voxel has 0.03 ml and a diagonal of 6.2 mm
AFFINE = np.array([[2.0, 0, 0, -12], [0, 3.0, 0, -9], [0, 0, 5.0, 100], [0, 0, 0, 1]])
MIDDLE = np.zeros(SHAPE[2])  # x = 0 mm: voxels 6 to 11 of the first axis are the patient's right


def box(x: tuple[int, int], y: tuple[int, int] = (0, 1), z: tuple[int, int] = (0, 1)) -> tuple[slice, slice, slice]:
    return slice(*x), slice(*y), slice(*z)


def mask(*boxes: tuple[slice, slice, slice], shape: tuple[int, int, int] = SHAPE) -> NDArray[np.bool_]:
    result = np.zeros(shape, dtype=bool)
    for each in boxes:
        result[each] = True
    return result


def bits_of(shape: tuple[int, int, int] = SHAPE, **boxes: Boxes) -> Bits:
    bits = empty_bits(shape, 32)
    for name, several in boxes.items():
        set_channel(bits, class_info(name).channel, mask(*several, shape=shape))
    return bits


def cleaned(bits: Bits, classes: Sequence[str] | None = None, rules: str = "all") -> Cleaned:
    return clean(bits, classes, affine=AFFINE, midline_x=MIDDLE, switches=rule_switches(rules))


def mask_of(bits: Bits, name: str) -> NDArray[np.bool_]:
    return get_channel(bits, class_info(name).channel)


def voxels(bits: Bits, name: str) -> int:
    return int(mask_of(bits, name).sum())
