"""The solids that the phantom is built of: each tests points for being inside, in the body frame, in mm.

Body frame: x to the patient's right, y to anterior, z to superior; origin at the height of the third lumbar vertebra.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Point = tuple[float, float, float]
Coordinates = NDArray[np.float32]
"""One body coordinate of every voxel of a box, (X, Y, Z) float32, mm."""
Inside = NDArray[np.bool_]


class Solid(Protocol):
    """A region of the body frame."""

    def bounds(self) -> tuple[Point, Point]:
        """Return the corners (low, high) in mm of a box that holds the region."""
        ...

    def inside(self, x: Coordinates, y: Coordinates, z: Coordinates) -> Inside:
        """Return for each point whether it lies in the region; x, y, z and the result have one shape."""
        ...

    def moved(self, about: Point, scale: float, shift: Point) -> Solid:
        """Return the region scaled about a point and then shifted, mm."""
        ...

    def pieces(self) -> tuple[Solid, ...]:
        """Return regions whose union this is, each with a tight box of its own."""
        ...


@dataclass(frozen=True)
class Blob:
    """An ellipsoid, or with `power` > 2 a rounded box.

    radii: half axes in mm. tilt_deg: turns about x, then y, then z (degrees, right-handed). cuts: half spaces
    (a, b, c, d) in the body frame; only points with a x + b y + c z <= d belong to the blob.
    """

    centre: Point
    radii: Point
    tilt_deg: Point = (0.0, 0.0, 0.0)
    power: int = 2
    cuts: tuple[tuple[float, float, float, float], ...] = ()

    @cached_property
    def _to_local(self) -> NDArray[np.float32]:
        about_x, about_y, about_z = np.deg2rad(self.tilt_deg)
        cx, sx, cy, sy, cz, sz = (f(a) for a in (about_x, about_y, about_z) for f in (np.cos, np.sin))
        turn_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        turn_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        turn_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        local: NDArray[np.float32] = ((turn_z @ turn_y @ turn_x).T / np.array(self.radii)[:, None]).astype(np.float32)
        return local

    def bounds(self) -> tuple[Point, Point]:
        """Return the box of the turned blob, before any cut."""
        turned = np.linalg.inv(self._to_local.astype(np.float64))
        # an ellipsoid reaches the row norm, a box the row's absolute sum; the latter holds for any power
        reach = np.linalg.norm(turned, axis=1) if self.power == 2 else np.abs(turned).sum(axis=1)
        centre = np.array(self.centre)
        return _point(centre - reach), _point(centre + reach)

    def inside(self, x: Coordinates, y: Coordinates, z: Coordinates) -> Inside:
        """Return for each point whether it lies in the blob and within all cuts."""
        dx, dy, dz = (axis - np.float32(middle) for axis, middle in zip((x, y, z), self.centre, strict=True))
        total = np.zeros(x.shape, dtype=np.float32)
        for row in self._to_local:
            term = dx * row[0] + dy * row[1] + dz * row[2]
            total += _even_power(term, self.power)
        result: Inside = total <= 1
        for a, b, c, d in self.cuts:
            result &= x * np.float32(a) + y * np.float32(b) + z * np.float32(c) <= d
        return result

    def moved(self, about: Point, scale: float, shift: Point) -> Blob:
        """Return the blob scaled about a point and then shifted; its cuts go along."""
        return replace(
            self,
            centre=_moved(self.centre, about, scale, shift),
            radii=_point(np.array(self.radii) * scale),
            cuts=tuple(_moved_cut(cut, about, scale, shift) for cut in self.cuts),
        )

    def pieces(self) -> tuple[Solid, ...]:
        """Return the blob itself."""
        return (self,)


@dataclass(frozen=True)
class Tube:
    """A tube with round ends along a smooth curve through `points`.

    points: at least two, mm. radii: one for each point, or a single one for all. cuts: as for `Blob`.
    """

    points: tuple[Point, ...]
    radii: tuple[float, ...]
    cuts: tuple[tuple[float, float, float, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.points) < 2 or len(self.radii) not in (1, len(self.points)):
            raise ValueError(
                f"tube of {len(self.points)} points with {len(self.radii)} radii; "
                "give two points or more, and one radius or one each"
            )

    @cached_property
    def _samples(self) -> NDArray[np.float64]:
        """(N, 4) x, y, z, radius along the curve, about one radius, at least 11 mm, apart."""
        points = np.array(self.points, dtype=np.float64)
        radii = np.broadcast_to(np.array(self.radii, dtype=np.float64), (len(points),))
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        count = max(2, 1 + int(np.ceil(along[-1] / max(1.2 * radii.mean(), 11.0))))
        curve = PchipInterpolator(along, np.column_stack([points, radii]))
        samples: NDArray[np.float64] = curve(np.linspace(0.0, along[-1], count))
        return samples

    def bounds(self) -> tuple[Point, Point]:
        """Return the box around the whole tube."""
        centres, radii = self._samples[:, :3], self._samples[:, 3:]
        return _point((centres - radii).min(axis=0)), _point((centres + radii).max(axis=0))

    def inside(self, x: Coordinates, y: Coordinates, z: Coordinates) -> Inside:
        """Return for each point whether it lies in the tube."""
        result: Inside = np.zeros(x.shape, dtype=bool)
        for piece in self.pieces():
            result |= piece.inside(x, y, z)
        return result

    def moved(self, about: Point, scale: float, shift: Point) -> Tube:
        """Return the tube scaled about a point and then shifted."""
        return replace(
            self,
            points=tuple(_moved(point, about, scale, shift) for point in self.points),
            radii=tuple(radius * scale for radius in self.radii),
            cuts=tuple(_moved_cut(cut, about, scale, shift) for cut in self.cuts),
        )

    def pieces(self) -> tuple[Solid, ...]:
        """Return one capsule for each stretch of the curve."""
        return tuple(
            Capsule(_point(a[:3]), _point(b[:3]), float(a[3]), float(b[3]), self.cuts)
            for a, b in zip(self._samples[:-1], self._samples[1:], strict=True)
        )


@dataclass(frozen=True)
class Capsule:
    """All points nearer to the line from `start` to `end` than a radius that changes evenly along it, mm."""

    start: Point
    end: Point
    start_radius: float
    end_radius: float
    cuts: tuple[tuple[float, float, float, float], ...] = ()

    def bounds(self) -> tuple[Point, Point]:
        """Return the box around both end spheres."""
        r, s = self.start_radius, self.end_radius
        (ax, ay, az), (bx, by, bz) = self.start, self.end
        low = (min(ax - r, bx - s), min(ay - r, by - s), min(az - r, bz - s))
        return low, (max(ax + r, bx + s), max(ay + r, by + s), max(az + r, bz + s))

    def inside(self, x: Coordinates, y: Coordinates, z: Coordinates) -> Inside:
        """Return for each point whether it lies in the capsule and within all cuts."""
        ax, ay, az = (np.float32(value) for value in self.start)
        bx, by, bz = (np.float32(b - a) for a, b in zip(self.start, self.end, strict=True))
        dx, dy, dz = x - ax, y - ay, z - az
        length = np.float32(max(float(bx * bx + by * by + bz * bz), 1e-6))
        along = np.clip((dx * bx + dy * by + dz * bz) / length, 0, 1)
        radius = np.float32(self.start_radius) + along * np.float32(self.end_radius - self.start_radius)
        result: Inside = (dx - along * bx) ** 2 + (dy - along * by) ** 2 + (dz - along * bz) ** 2 <= radius**2
        for a, b, c, d in self.cuts:
            result &= x * np.float32(a) + y * np.float32(b) + z * np.float32(c) <= d
        return result

    def moved(self, about: Point, scale: float, shift: Point) -> Capsule:
        """Return the capsule scaled about a point and then shifted."""
        return Capsule(
            _moved(self.start, about, scale, shift),
            _moved(self.end, about, scale, shift),
            self.start_radius * scale,
            self.end_radius * scale,
            tuple(_moved_cut(cut, about, scale, shift) for cut in self.cuts),
        )

    def pieces(self) -> tuple[Solid, ...]:
        """Return the capsule itself."""
        return (self,)


@dataclass(frozen=True)
class Loft:
    """A stack of rounded cross-sections along z, as of a trunk or a lung.

    knots: (z, middle x, middle y, half width in x, half width in y) in mm, rising in z; smooth between them.
    power: 2 for ellipses, larger for boxier outlines.
    """

    knots: tuple[tuple[float, float, float, float, float], ...]
    power: int = 2

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        """(N, 4) middle x, y and half widths x, y, one row for each mm from the lowest knot up."""
        knots = np.array(self.knots, dtype=np.float64)
        heights = np.minimum(np.arange(knots[0, 0], knots[-1, 0] + 1.0), knots[-1, 0])
        table: NDArray[np.float32] = PchipInterpolator(knots[:, 0], knots[:, 1:])(heights).astype(np.float32)
        return table

    def bounds(self) -> tuple[Point, Point]:
        """Return the box around all cross-sections."""
        middle, half = self._table[:, :2], self._table[:, 2:]
        low, high = (middle - half).min(axis=0), (middle + half).max(axis=0)
        return (float(low[0]), float(low[1]), self.knots[0][0]), (float(high[0]), float(high[1]), self.knots[-1][0])

    def inside(self, x: Coordinates, y: Coordinates, z: Coordinates) -> Inside:
        """Return for each point whether it lies in the cross-section at its height."""
        lowest, highest = np.float32(self.knots[0][0]), np.float32(self.knots[-1][0])
        row = np.clip((z - lowest).astype(np.int32), 0, len(self._table) - 1)
        middle_x, middle_y, half_x, half_y = (column[row] for column in self._table.T)
        ring = _even_power((x - middle_x) / half_x, self.power) + _even_power((y - middle_y) / half_y, self.power)
        result: Inside = (ring <= 1) & (z >= lowest) & (z <= highest)
        return result

    def moved(self, about: Point, scale: float, shift: Point) -> Loft:
        """Return the loft scaled about a point and then shifted."""
        knots = []
        for z, middle_x, middle_y, half_x, half_y in self.knots:
            new_x, new_y, new_z = _moved((middle_x, middle_y, z), about, scale, shift)
            knots.append((new_z, new_x, new_y, half_x * scale, half_y * scale))
        return replace(self, knots=tuple(knots))

    def pieces(self) -> tuple[Solid, ...]:
        """Return the loft itself."""
        return (self,)


def _even_power(term: Coordinates, power: int) -> Coordinates:
    """Return |term| ** power for an even power by repeated squaring, which is far faster than a float power."""
    if power not in (2, 4, 8):
        raise ValueError(f"power {power} of a solid; choose 2, 4 or 8")
    result = term * term
    while power > 2:
        result = result * result
        power //= 2
    return result


def _moved(point: Point, about: Point, scale: float, shift: Point) -> Point:
    return _point(np.array(about) + scale * (np.array(point) - np.array(about)) + np.array(shift))


def _moved_cut(
    cut: tuple[float, float, float, float], about: Point, scale: float, shift: Point
) -> tuple[float, float, float, float]:
    a, b, c, d = cut
    normal = np.array([a, b, c])
    base = np.array(about)
    return (a, b, c, float(scale * (d - normal @ base) + normal @ (base + np.array(shift))))


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in values)
    return (x, y, z)
