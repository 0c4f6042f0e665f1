"""Fixtures: `real` (folder of a real test case, or skip), `body` (a tiny CT with liver and pancreas and its label)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from imaging.volume import Volume

SHAPE = (20, 16, 10)
AFFINE = np.array([[8.0, 0, 0, -76], [0, 9.0, 0, -60], [0, 0, 10.0, -20], [0, 0, 0, 1]])
LIVER = (slice(11, 16), slice(5, 12), slice(3, 9))
PANCREAS = (slice(6, 10), slice(8, 11), slice(4, 6))


class Body(NamedTuple):
    """A scan in RAS order, (20, 16, 10) voxels of 8 x 9 x 10 mm: image in HU, label 1 = liver, 2 = pancreas.

    x grows to the patient's right, so the liver lies at high x. Every axis tells its ends apart: lungs above, spine
    behind, liver right.
    """

    image: Volume
    label: Volume


@pytest.fixture
def body() -> Body:
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[3:17, 2:14, :] = -90  # fat
    hu[9:11, 3:6, :] = 450  # spine
    hu[4:16, 7:13, 8:] = -850  # lungs
    hu[4:8, 4:8, 1:4] = -400  # bowel gas, left and behind
    hu[LIVER] = 70
    hu[PANCREAS] = 40
    hu[::2, ::2, ::2] += 3
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[LIVER] = 1
    label[PANCREAS] = 2
    return Body(Volume(hu, AFFINE), Volume(label, AFFINE))


@pytest.fixture
def real(real_data: Path) -> Callable[[str], Path]:
    """Return a function from case name to folder; it skips where the real scan is absent."""

    def folder(case: str) -> Path:
        if not (real_data / case).is_dir():
            pytest.skip(f"real case {case} is absent from {real_data}")
        return real_data / case

    return folder


def reordered(volume: Volume, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    """Return the same voxels in the same places, stored with other axis order and directions.

    Array axis j of the result is axis axes[j] of the input, reversed where flips[j].
    """
    array = volume.array.transpose(axes)
    affine = np.eye(4)
    affine[:3, :3] = volume.affine[:3, axes]
    affine[:3, 3] = volume.affine[:3, 3]
    for axis, flipped in enumerate(flips):
        if flipped:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return Volume(np.ascontiguousarray(array), affine)


@pytest.fixture
def store_as() -> Callable[[Volume, tuple[int, int, int], tuple[bool, bool, bool]], Volume]:
    return reordered
