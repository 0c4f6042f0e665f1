"""From the scanner's world to the body frame of one patient: position, size and a smooth deformation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets_registry.miniatures.geometry import Coordinates, Point
from imaging.volume import Affine

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Wave:
    """A shift of body axis `axis` by `amplitude_mm` x sin(2 pi w / wavelength_mm + phase), w the world axis `source`."""

    axis: int
    source: int
    amplitude_mm: float
    wavelength_mm: float
    phase: float


@dataclass(frozen=True, eq=False)
class BodyMap:
    """body = linear @ (world - origin_mm) + waves(world); linear: 3 x 3, scale and a small turn; world: RAS mm."""

    linear: NDArray[np.float64]
    origin_mm: Point
    waves: tuple[Wave, ...]

    def coordinates(self, shape: tuple[int, int, int], affine: Affine) -> tuple[Coordinates, Coordinates, Coordinates]:
        """Return the body x, y, z of every voxel of a grid, each (X, Y, Z) float32 mm."""
        # each world coordinate stays a sum of arrays along one axis, so that sines are taken on lines, not on volumes
        world = [_world_axis(axis, shape, affine) for axis in range(3)]
        body: list[Coordinates] = []
        for axis in range(3):
            total = np.zeros(shape, dtype=np.float32)
            for source in range(3):
                if abs(self.linear[axis, source]) > 1e-9:
                    total += np.float32(self.linear[axis, source]) * (world[source] - np.float32(self.origin_mm[source]))
            for wave in self.waves:
                if wave.axis == axis:
                    angle = world[wave.source] * np.float32(2 * np.pi / wave.wavelength_mm) + np.float32(wave.phase)
                    total += np.float32(wave.amplitude_mm) * np.sin(angle)
            body.append(total)
        return body[0], body[1], body[2]

    def index_box(self, low: Point, high: Point, shape: tuple[int, int, int], affine: Affine) -> Slices | None:
        """Return the voxels of a grid that a box of the body frame may touch, None if it lies outside the grid."""
        reach = np.zeros(3)
        for wave in self.waves:
            reach[wave.axis] += abs(wave.amplitude_mm)
        middle = (np.array(low) + np.array(high)) / 2
        half = (np.array(high) - np.array(low)) / 2 + reach
        to_index = np.linalg.inv(affine[:3, :3]) @ np.linalg.inv(self.linear)
        origin = np.linalg.inv(affine[:3, :3]) @ (np.array(self.origin_mm) - affine[:3, 3])
        centre_index = origin + to_index @ middle
        half_index = np.abs(to_index) @ half
        start = np.maximum(np.ceil(centre_index - half_index).astype(int), 0)
        stop = np.minimum(np.floor(centre_index + half_index).astype(int) + 1, shape)
        if (stop <= start).any():
            return None
        return (slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2]))


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
