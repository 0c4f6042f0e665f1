"""Values at fractional voxel positions: separable where grids line up, SimpleITK where they are turned."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from imaging.threads import case_threads
from imaging.volume import Affine

Shape = tuple[int, int, int]
LINED_UP_VOXELS = 0.01
"""Drift across the grid, in source voxels, below which an output axis counts as running along one input axis."""
BLOCKS = 8
"""Parts that the output is divided into, for the threads to take one after another."""


@dataclass(frozen=True)
class _AxisPlan:
    """For one output axis: the input axis it runs along and, per output index, where to read.

    low, high: (n,) neighbouring input indices; weight: (n,) float32 share of `high`; inside: (n,) bool.
    nearest: (n,) input index. All indices are clamped to the input, `inside` tells which of them count.
    """

    source: int
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32]
    nearest: NDArray[np.intp]
    inside: NDArray[np.bool_]


def interpolate_linear(array: NDArray[Any], matrix: Affine, shape: Shape, outside: float) -> NDArray[Any]:
    """Return linear values of `array` (X, Y, Z) at matrix @ (i, j, k, 1) for all indices of `shape`.

    matrix: 4 x 4, output index to input index. Integers give int16 rounded to even, floats float32. `outside` fills
    positions more than half a voxel beyond the input's edge.
    """
    whole = array.dtype.kind in "iub"
    kind: type[Any] = np.int16 if whole else np.float32
    plans = _line_up(matrix, array.shape, shape)
    if plans is None:
        return _finish(_turned(array.astype(np.float32), matrix, shape, sitk.sitkLinear, outside), kind)
    result = _separable(array.transpose([p.source for p in plans]), plans, shape, kind)
    _fill_outside(result, plans, outside)
    return result


def interpolate_nearest(array: NDArray[Any], matrix: Affine, shape: Shape) -> NDArray[Any]:
    """Return the nearest voxel of `array` (X, Y, Z), any integer or bool dtype, at matrix @ (i, j, k, 1); outside 0.

    Exactly half way goes to the higher index.
    """
    plans = _line_up(matrix, array.shape, shape)
    if plans is None:
        plain = array.view(np.uint8) if array.dtype == bool else array
        return _turned(plain, matrix, shape, sitk.sitkNearestNeighbor, 0).astype(array.dtype)
    return _gather(array.transpose([p.source for p in plans]), plans, shape)


def _line_up(matrix: Affine, source_shape: tuple[int, ...], shape: Shape) -> tuple[_AxisPlan, ...] | None:
    """Return one plan an output axis, or None when the grids are turned against each other."""
    linear = matrix[:3, :3]
    along = np.zeros((3, 3), dtype=bool)
    along[np.abs(linear).argmax(axis=0), np.arange(3)] = True
    if not along.any(axis=1).all():
        return None
    drift = np.where(along, 0.0, np.abs(linear)) * (np.array(shape) - 1)
    if drift.sum(axis=1).max() > LINED_UP_VOXELS:
        return None
    plans = []
    for axis in range(3):
        source = int(along[:, axis].argmax())
        plans.append(_plan_axis(source, linear[source, axis], matrix[source, 3], source_shape[source], shape[axis]))
    return tuple(plans)


def _plan_axis(source: int, step: float, start: float, size: int, count: int) -> _AxisPlan:
    position = start + step * np.arange(count)
    # rounding of an affine in float32 must not turn an exact voxel centre into a mixture or a half into a side
    snapped = np.round(position * 2) / 2
    position = np.where(np.abs(position - snapped) < 1e-4, snapped, position)
    overhang = max(0.5, 0.5 * abs(step)) + 1e-4
    inside = (position >= -overhang) & (position <= size - 1 + overhang)
    clamped = np.clip(position, 0, size - 1)
    low = np.floor(clamped).astype(np.intp)
    high = np.minimum(low + 1, size - 1)
    nearest = np.clip(np.floor(position + 0.5), 0, size - 1).astype(np.intp)
    return _AxisPlan(source, low, high, (clamped - low).astype(np.float32), nearest, inside)


def _separable(array: NDArray[Any], plans: tuple[_AxisPlan, ...], shape: Shape, kind: type[Any]) -> NDArray[Any]:
    """Linear values one slab after another; the work of a slab stays in the processor's cache."""
    slab, row, column = sorted(range(3), key=lambda a: -abs(array.strides[a]))
    source = array.transpose(slab, row, column)
    along, rows, columns = plans[slab], plans[row], plans[column]
    target = np.empty((shape[slab], shape[row], shape[column]), dtype=kind)

    def in_plane(index: int) -> NDArray[np.float32]:
        return _mix_columns(_mix_rows(source[index], rows), columns)

    def mix_then_plane(index: int) -> NDArray[np.float32]:
        low, high, weight = along.low[index], along.high[index], along.weight[index]
        if weight == 0:
            return in_plane(int(low))
        plane = source[low].astype(np.float32)
        plane += weight * (source[high].astype(np.float32) - plane)
        return _mix_columns(_mix_rows(plane, rows), columns)

    def plane_then_mix(index: int, planes: _Latest) -> NDArray[np.float32]:
        low, high, weight = int(along.low[index]), int(along.high[index]), along.weight[index]
        first = planes.of(low)
        return first if weight == 0 else first + weight * (planes.of(high) - first)

    shrinks = shape[slab] < source.shape[0]

    def fill(block: NDArray[np.intp]) -> None:
        # upsampling along the slab axis uses each input plane several times: shrink it once and keep two
        planes = _Latest(in_plane)
        for index in block:
            target[index] = _finish(mix_then_plane(index) if shrinks else plane_then_mix(index, planes), kind)

    with ThreadPoolExecutor(case_threads()) as pool:
        list(pool.map(fill, np.array_split(np.arange(shape[slab]), BLOCKS)))
    back = np.argsort([slab, row, column])
    return target.transpose(back)


def _gather(array: NDArray[Any], plans: tuple[_AxisPlan, ...], shape: Shape) -> NDArray[Any]:
    """Nearest voxels, 0 outside, one slab after another in the source's memory order.

    Only what lies inside the source is touched: a mask that was cut out of its scan costs what it covers.
    """
    slab, row, column = sorted(range(3), key=lambda a: -abs(array.strides[a]))
    source = array.transpose(slab, row, column)
    along = plans[slab]
    within = tuple(_inside(plans[axis]) for axis in (row, column))
    rows, columns = plans[row].nearest[within[0]], plans[column].nearest[within[1]]
    target = np.zeros((shape[slab], shape[row], shape[column]), dtype=array.dtype)

    def fill(block: NDArray[np.intp]) -> None:
        last = -1
        for index in block:
            nearest = int(along.nearest[index])
            if nearest == last:
                target[index] = target[index - 1]
            else:
                target[index][within] = source[nearest].take(rows, axis=0).take(columns, axis=1)
            last = nearest

    with ThreadPoolExecutor(case_threads()) as pool:
        list(pool.map(fill, np.array_split(np.arange(shape[slab])[_inside(along)], BLOCKS)))
    return target.transpose(np.argsort([slab, row, column]))


def _inside(plan: _AxisPlan) -> slice:
    """Return the output indices along an axis that lie inside the source; positions run one way, so they are a run."""
    hits = np.flatnonzero(plan.inside)
    return slice(int(hits[0]), int(hits[-1]) + 1) if len(hits) else slice(0, 0)


class _Latest:
    """The two planes asked for last."""

    def __init__(self, make: Callable[[int], NDArray[np.float32]]) -> None:
        self._make = make
        self._kept: dict[int, NDArray[np.float32]] = {}

    def of(self, index: int) -> NDArray[np.float32]:
        if index not in self._kept:
            if len(self._kept) == 2:
                self._kept.pop(next(iter(self._kept)))
            self._kept[index] = self._make(index)
        else:
            self._kept[index] = self._kept.pop(index)
        return self._kept[index]


def _mix_rows(plane: NDArray[Any], plan: _AxisPlan) -> NDArray[np.float32]:
    if not plan.weight.any():
        return plane[plan.low].astype(np.float32, copy=False)
    low = plane[plan.low].astype(np.float32)
    high = plane[plan.high].astype(np.float32, copy=False)
    return low + plan.weight[:, None] * (high - low)


def _mix_columns(plane: NDArray[np.float32], plan: _AxisPlan) -> NDArray[np.float32]:
    low = plane.take(plan.low, axis=1)
    if not plan.weight.any():
        return low
    mixed = plane.take(plan.high, axis=1)
    mixed -= low
    mixed *= plan.weight
    mixed += low
    return mixed


def _turned(array: NDArray[Any], matrix: Affine, shape: Shape, method: int, outside: float) -> NDArray[Any]:
    """Resample in index space: a plain affine transform serves oblique and sheared grids alike."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))  # SimpleITK's arrays are (Z, Y, X)
    transform = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    moved = sitk.Resample(
        image,
        list(shape),
        transform,
        method,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        float(outside),
    )
    values: NDArray[Any] = sitk.GetArrayFromImage(moved)
    return values.T


def _finish(values: NDArray[np.float32], kind: type[Any]) -> NDArray[Any]:
    if kind is np.float32:
        return values
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)


def _fill_outside(result: NDArray[Any], plans: tuple[_AxisPlan, ...], outside: float) -> None:
    for axis, plan in enumerate(plans):
        if not plan.inside.all():
            where: list[Any] = [slice(None)] * 3
            where[axis] = ~plan.inside
            result[tuple(where)] = outside
