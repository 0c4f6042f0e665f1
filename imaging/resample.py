"""Grids in patient space and resampling onto them: images linear, labels and class bits nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from imaging.interpolate import interpolate_linear, interpolate_nearest
from imaging.volume import Affine, Volume

AIR_HU = -1024
ALIGNED_MM = 0.01
"""Largest displacement by rotation or shear, over the whole scan, at which a grid still counts as axis-aligned."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie: shape (X, Y, Z) and the 4 x 4 affine from voxel index to RAS mm."""

    shape: tuple[int, int, int]
    affine: Affine

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"grid of shape {tuple(self.shape)}: three sizes of at least 1 are needed")
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError(f"grid affine {affine.tolist()}: a finite, invertible 4 x 4 matrix is needed")
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1]), int(self.shape[2])))
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """Return the grid a volume lies on."""
        return cls(volume.shape, volume.affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(x), float(y), float(z))


def orientation(affine: Affine) -> str:
    """Return the letters the three voxel axes point to, nearest for oblique scans, such as "RAS" or "LPS"."""
    return "".join(nib.orientations.aff2axcodes(affine))


def is_axis_aligned(affine: Affine, shape: tuple[int, int, int]) -> bool:
    """Tell whether every voxel axis runs along a patient axis, up to `ALIGNED_MM` over the scan's length."""
    axes = nib.orientations.io_orientation(affine)[:, 0].astype(int)
    along = np.zeros((3, 3), dtype=bool)
    along[axes, np.arange(3)] = True
    drift = np.abs(np.where(along, 0.0, affine[:3, :3])) * (np.array(shape) - 1)
    return bool(drift.sum(axis=1).max() <= ALIGNED_MM)


def shear_degrees(affine: Affine) -> float:
    """Return how far the voxel axes are from pairwise right angles, in degrees; 0 for an orthogonal grid."""
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(unit.T @ unit - np.eye(3))
    return float(np.degrees(np.arcsin(min(1.0, cosines.max()))))


def orient_ras(volume: Volume) -> Volume:
    """Return the volume with its axes permuted and flipped so that they point Right, Anterior, Superior.

    No voxel value changes and every voxel keeps its world position; oblique axes go to the nearest patient axis.
    The array is a view of the given one.
    """
    before = orientation(volume.affine)
    if before == "RAS":
        return volume
    turn = nib.orientations.io_orientation(volume.affine)
    array = nib.orientations.apply_orientation(volume.array, turn)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.shape)
    return Volume(array, affine, volume.steps).with_step("orient_ras", orientation_before=before)


def grid_for(volume: Volume, spacing_mm: tuple[float, float, float]) -> Grid:
    """Return the axis-aligned RAS grid of `spacing_mm` (X, Y, Z) that covers a scan.

    Axis-aligned scans keep the centre of their first RAS voxel, and n = round((n0 - 1) * s0 / s) + 1 voxels an axis,
    so the last centre lies within half a voxel of the scan's. Oblique ones get the bounding box of their voxel centres.
    """
    if min(spacing_mm) <= 0 or not np.isfinite(spacing_mm).all():
        raise ValueError(f"spacing_mm {spacing_mm}: three positive numbers of mm are needed")
    step = np.asarray(spacing_mm, dtype=np.float64)
    corners = _corners(volume.affine, volume.shape)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if is_axis_aligned(volume.affine, volume.shape):
        ras = orient_ras(volume)
        low = ras.affine[:3, 3]
        extent = (np.array(ras.shape) - 1) * np.array(ras.spacing_mm)
        count = np.floor(extent / step + 0.5).astype(int) + 1
    else:
        # the tolerance keeps rounding of a length that divides evenly from adding a layer
        count = np.ceil((high - low) / step - 1e-6).astype(int) + 1
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = low
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)


def resample_image(volume: Volume, grid: Grid, outside: float = AIR_HU) -> Volume:
    """Return an image interpolated linearly onto `grid`; integers come back as int16 rounded, floats as float32.

    Along axes that line up, an edge voxel extends up to half a voxel (the larger of both grids') beyond its centre;
    `outside` (HU) fills what lies farther, such as the corners around an oblique scan.
    """
    array = interpolate_linear(volume.array, index_map(volume.affine, grid.affine), grid.shape, outside)
    return _resampled(volume, array, grid, "linear")


def resample_nearest(volume: Volume, grid: Grid) -> Volume:
    """Return integer or bool voxels on `grid`, each the nearest input voxel's; the dtype stays, outside is 0."""
    if volume.array.dtype.kind not in "iub":
        raise ValueError(f"nearest resampling is for integers and masks, got {volume.array.dtype}")
    array = interpolate_nearest(volume.array, index_map(volume.affine, grid.affine), grid.shape)
    return _resampled(volume, array, grid, "nearest")


def resample_bits(bits: NDArray[np.uint32], from_affine: Affine, grid: Grid) -> NDArray[np.uint32]:
    """Return class bits (W, X, Y, Z) on `grid` by nearest voxel, outside 0: lake grid to original geometry or back."""
    matrix = index_map(from_affine, grid.affine)
    if len(bits) == 1:
        return interpolate_nearest(bits[0], matrix, grid.shape)[None]
    # memory order (W, Z, Y, X), as each word is made
    result = np.empty((bits.shape[0], *grid.shape[::-1]), dtype=np.uint32)
    for word, source in enumerate(bits):
        result[word] = interpolate_nearest(source, matrix, grid.shape).T
    return result.transpose(0, 3, 2, 1)


def straighten(volume: Volume, *, nearest: bool = False, outside: float = AIR_HU) -> Volume:
    """Return a sheared volume (gantry tilt) on an orthogonal grid that covers it; world points hold.

    The planes of the first two axes stay; each is shifted within itself, so that the third axis becomes their normal.
    An orthogonal volume is returned unchanged. nearest: for labels; `outside` fills the new edges of images.
    """
    degrees = shear_degrees(volume.affine)
    if degrees < 1e-4:
        return volume
    first, second, third = volume.affine[:3, :3].T
    e1 = first / np.linalg.norm(first)
    normal = np.cross(first, second)
    normal *= np.sign(normal @ third) / np.linalg.norm(normal)
    e2 = np.cross(normal, e1)
    e2 *= np.sign(e2 @ second)
    frame = np.stack([e1, e2, normal], axis=1)
    step = np.array([np.linalg.norm(first), np.linalg.norm(second), normal @ third])
    corners = _corners(volume.affine, volume.shape) @ frame
    low, high = corners.min(axis=0), corners.max(axis=0)
    count = np.ceil((high - low) / step - 1e-3).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = frame * step
    affine[:3, 3] = frame @ low
    grid = Grid((int(count[0]), int(count[1]), int(count[2])), affine)
    straight = resample_nearest(volume, grid) if nearest else resample_image(volume, grid, outside)
    return Volume(straight.array, grid.affine, volume.steps).with_step(
        "straighten", degrees=round(degrees, 4), shape_before=list(volume.shape), shape=list(grid.shape)
    )


def index_map(from_affine: Affine, to_affine: Affine) -> Affine:
    """Return the 4 x 4 matrix from a voxel index of the target grid to the (fractional) index of the source grid."""
    matrix: Affine = np.linalg.inv(from_affine) @ to_affine
    return matrix


def _corners(affine: Affine, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """World mm of the eight corner voxel centres, (8, 3)."""
    index = np.array([[i, j, k] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    corners: NDArray[np.float64] = index @ affine[:3, :3].T + affine[:3, 3]
    return corners


def _resampled(volume: Volume, array: NDArray[Any], grid: Grid, method: str) -> Volume:
    return Volume(array, grid.affine, volume.steps).with_step(
        "resample", method=method, shape=list(grid.shape), spacing_mm=[round(s, 6) for s in grid.spacing_mm]
    )
