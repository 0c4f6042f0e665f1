"""From the scanner's world to the body frame of one patient: position, size and a smooth deformation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets_registry.miniatures.geometry import Coordinates, Point
from imaging.volume import Affine

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Wave:
    """A shift of body axis `axis` by amplitude_mm x sin(2 pi w / wavelength_mm + phase), w: world axis `source`."""

    axis: int
    source: int
    amplitude_mm: float
    wavelength_mm: float
    phase: float


@dataclass(frozen=True, eq=False)
class BodyGrid:
    """A voxel grid seen from the body frame.

    x, y, z: body coordinates of every voxel, each (X, Y, Z) float32 mm. origin_index, to_index: index = origin_index +
    to_index @ body, up to a deformation of at most `reach_mm` per body axis.
    """

    x: Coordinates
    y: Coordinates
    z: Coordinates
    origin_index: NDArray[np.float64]
    to_index: NDArray[np.float64]
    reach_mm: NDArray[np.float64]

    def box(self, low: Point, high: Point) -> Slices | None:
        """Return the voxels that a box of the body frame may touch, None if it lies outside the grid."""
        corner = np.array(low)
        half = (np.array(high) - corner) / 2
        centre_index = self.origin_index + self.to_index @ (corner + half)
        half_index = np.abs(self.to_index) @ (half + self.reach_mm)
        spans = []
        for middle, reach, length in zip(centre_index.tolist(), half_index.tolist(), self.x.shape, strict=True):
            start, stop = max(math.ceil(middle - reach), 0), min(math.floor(middle + reach) + 1, length)
            if stop <= start:
                return None
            spans.append(slice(start, stop))
        return (spans[0], spans[1], spans[2])


@dataclass(frozen=True, eq=False)
class BodyMap:
    """body = linear @ (world - origin_mm) + waves(world); linear: 3 x 3, scale and a small turn; world: RAS mm."""

    linear: NDArray[np.float64]
    origin_mm: Point
    waves: tuple[Wave, ...]

    def on_grid(self, shape: tuple[int, int, int], affine: Affine) -> BodyGrid:
        """Return the body coordinates of a grid; affine: voxel index to RAS mm."""
        # each world coordinate stays a sum of arrays along one axis, so that sines are taken on lines, not on volumes
        world = [_world_axis(axis, shape, affine) for axis in range(3)]
        reach = np.zeros(3)
        body: list[Coordinates] = []
        for axis in range(3):
            total = np.zeros(shape, dtype=np.float32)
            for source in range(3):
                if abs(self.linear[axis, source]) > 1e-9:
                    total += np.float32(self.linear[axis, source]) * (
                        world[source] - np.float32(self.origin_mm[source])
                    )
            for wave in self.waves:
                if wave.axis == axis:
                    angle = world[wave.source] * np.float32(2 * np.pi / wave.wavelength_mm) + np.float32(wave.phase)
                    total += np.float32(wave.amplitude_mm) * np.sin(angle)
                    reach[axis] += abs(wave.amplitude_mm)
            body.append(total)
        to_voxel = np.linalg.inv(affine[:3, :3])
        origin_index = to_voxel @ (np.array(self.origin_mm) - affine[:3, 3])
        return BodyGrid(body[0], body[1], body[2], origin_index, to_voxel @ np.linalg.inv(self.linear), reach)


def draw_body_map(rng: np.random.Generator) -> BodyMap:
    """Return the map of a random patient: 90-110 % of adult size, turned by a few degrees, smoothly deformed."""
    overall = rng.normal(1.0, 0.035)
    scale = np.clip(overall * rng.normal(1.0, 0.025, 3), 0.9, 1.1)
    turn = np.deg2rad(np.clip(rng.normal(0, 1.6, 3), -4, 4))
    skew = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    linear = np.diag(1.0 / scale) @ (np.eye(3) + skew)
    waves = tuple(
        Wave(axis, source, float(rng.uniform(0.5, 3.5)), float(rng.uniform(240, 460)), float(rng.uniform(0, 2 * np.pi)))
        for axis in range(3)
        for source in range(3)
        if source != axis
    )
    x, y, z = (float(value) for value in rng.normal(0, (4, 4, 6)))
    return BodyMap(linear, (x, y, z), waves)


def _world_axis(axis: int, shape: tuple[int, int, int], affine: Affine) -> NDArray[np.float32]:
    """Return world coordinate `axis` of every voxel, broadcastable to `shape`; of length 1 along unrelated axes."""
    total = np.full((1, 1, 1), affine[axis, 3])
    for along in range(3):
        if abs(affine[axis, along]) > 1e-9:
            line = affine[axis, along] * np.arange(shape[along], dtype=np.float64)
            total = total + line.reshape([-1 if other == along else 1 for other in range(3)])
    return total.astype(np.float32)
