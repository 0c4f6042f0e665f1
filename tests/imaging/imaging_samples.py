"""Small volumes of known values and places, for the tests of this room."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from imaging.volume import Affine, Volume

GRADIENT = np.array([2.0, -3.0, 1.5])
"""HU per mm along world x, y, z of `linear_scan`: different along each axis, so that no swap or flip goes unseen."""

ORIENTATIONS = [(p, s) for p in permutations(range(3)) for s in product((1.0, -1.0), repeat=3)]
"""All 48 ways in which three voxel axes run along patient axes."""


def oriented_affine(
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    order: tuple[int, ...] = (0, 1, 2),
    signs: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> Affine:
    """Voxel axis a runs along patient axis order[a] in direction signs[a], in steps of spacing_mm[a]."""
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing_mm[axis]
    affine[:3, 3] = origin_mm
    return affine


def turned_affine(spacing_mm: tuple[float, float, float], degrees: float) -> Affine:
    """RAS axes turned about the patient's x axis."""
    angle = np.radians(degrees)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= spacing_mm
    affine[:3, 3] = (-12.0, 7.0, 30.0)
    return affine


def world_of(shape: tuple[int, ...], affine: Affine) -> NDArray[np.float64]:
    """World mm of every voxel centre, (X, Y, Z, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    world: NDArray[np.float64] = index @ affine[:3, :3].T + affine[:3, 3]
    return world


def linear_scan(shape: tuple[int, int, int], affine: Affine, dtype: type = np.float32) -> Volume:
    """A scan whose HU is a linear function of world position, which linear interpolation keeps exactly."""
    hu = world_of(shape, affine) @ GRADIENT
    return Volume((np.rint(hu) if dtype is not np.float32 else hu).astype(dtype), affine)


def step_names(volume: Volume) -> list[str]:
    return [step.name for step in volume.steps]
