"""What a scan looks like slice by slice, without its geometry: copies of one scan can be told by it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.volume import Volume

FINGERPRINT_VERSION = 1
"""First byte of a stored fingerprint: fingerprints of different versions are never compared."""

RAMPS_HU = ((-100.0, -20.0), (-20.0, 60.0), (60.0, 200.0))
"""Each tissue counts 0 below and 1 above, linear between; a window that holds -100 to 200 HU is harmless."""

FEATURES = 10
"""Figures of one slice."""

MIN_SLICES = 8
"""A scan with fewer slices that show a body has no fingerprint: too little to tell patients apart."""

MIN_BODY_VOXELS = 60.0
"""A slice that shows less of the lowest ramp is empty."""

_MAX_SLICES = 4096

Profile = NDArray[np.float32]
"""(Z, FEATURES), along the scan's superior axis; rows of zeros are empty slices."""


@dataclass(frozen=True, eq=False)
class _Moments:
    """Mass, centre and spread of one ramp in each slice: arrays (Z,); centre in voxels, spread in voxels squared."""

    mass: NDArray[np.float64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    stretch: NDArray[np.float64]


def slice_profile(image: Volume) -> Profile | None:
    """Return the figures of every axial slice, or None where too few slices show a body; see `axis_profiles`."""
    return axis_profiles(image)[2]


def axis_profiles(image: Volume) -> tuple[Profile | None, Profile | None, Profile | None]:
    """Return the figures of every slice across X, across Y and across Z; None where too few slices show a body.

    image: HU in RAS order (`orient_ras`), raw voxels before resampling. Spacing is not used. Every figure is the same
    after a flip or transposition within the slice and after cropping air around the body; HU beyond the ramps and the
    value of air do not count, and noise averages out over a slice. Where a header names the axes wrongly, the slices
    across Z of its scan are those across X or Y of a sound copy.
    """
    if max(image.array.shape) > _MAX_SLICES or min(image.array.shape) < 2:
        return None, None, None
    across_x, across_y, across_z = (_figures(raw) for raw in _raw_moments(image.array))
    return across_x, across_y, across_z


def _figures(raw: NDArray[np.float64]) -> Profile | None:
    """Return the figures of slices from their sums, (ramp, slice, 3, 3); None where too few show a body."""
    fat, soft, dense = (_moments(of_ramp) for of_ramp in raw)
    shown = fat.mass > MIN_BODY_VOXELS
    if int(shown.sum()) < MIN_SLICES:
        return None
    area = np.maximum(fat.mass, 1.0)
    side = np.sqrt(area)
    figures = [
        np.log2(area),
        4 * soft.mass / area,
        8 * dense.mass / area,
        4 * np.sqrt(fat.spread) / side,
        4 * fat.stretch,
        4 * np.sqrt(soft.spread) / side,
        4 * np.sqrt(dense.spread) / side,
        2 * dense.stretch,
        8 * np.linalg.norm(fat.centre - soft.centre, axis=1) / side,
        4 * np.linalg.norm(fat.centre - dense.centre, axis=1) / side,
    ]
    return np.where(shown[:, None], np.stack(figures, axis=1), 0.0).astype(np.float32)


def _raw_moments(array: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return sums over each slice across X, Y and Z of every ramp times u^i v^j, (ramp, slice, i, j) for i, j up to 2.

    u, v: the slice's two axes in order, counted from its middle. One pass over the voxels gives all three.
    """
    powers_x, powers_y, powers_z = (_powers(length) for length in array.shape)
    raw_x, raw_y, raw_z = (np.zeros((len(RAMPS_HU), length, 3, 3)) for length in array.shape)
    ramp = np.empty(array.shape[:2], dtype=np.float32, order="F")
    for z in range(array.shape[2]):
        plane = array[:, :, z].astype(np.float32)
        for number, (low, high) in enumerate(RAMPS_HU):
            np.clip(plane, low, high, out=ramp)
            ramp -= np.float32(low)
            along_y = ramp @ powers_y.T / np.float32(high - low)  # (X, j)
            along_x = powers_x @ ramp / np.float32(high - low)  # (i, Y)
            raw_x[number] += along_y[:, :, None] * powers_z[:, z]
            raw_y[number] += along_x.T[:, :, None] * powers_z[:, z]
            raw_z[number, z] = powers_x @ along_y
    return raw_x, raw_y, raw_z


def _moments(raw: NDArray[np.float64]) -> _Moments:
    """Return mass, centre and spread of one ramp from its sums, (Z, 3, 3)."""
    mass = raw[:, 0, 0]
    safe = np.maximum(mass, 1e-6)
    centre = np.stack([raw[:, 1, 0], raw[:, 0, 1]], axis=1) / safe[:, None]
    xx = raw[:, 2, 0] / safe - centre[:, 0] ** 2
    yy = raw[:, 0, 2] / safe - centre[:, 1] ** 2
    xy = raw[:, 1, 1] / safe - centre[:, 0] * centre[:, 1]
    spread = np.maximum(xx + yy, 0.0)
    stretch = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / np.maximum(spread, 1e-6)
    little = mass < 4.0  # the centre of a few noisy voxels says nothing
    return _Moments(
        mass,
        np.where(little[:, None], 0.0, centre),
        np.where(little, 0.0, spread),
        np.where(little, 0.0, np.minimum(stretch, 1.0)),
    )


def _powers(length: int) -> NDArray[np.float32]:
    """Return (3, length): 1, x and x squared, counted from the middle so that float32 keeps its digits."""
    x = np.arange(length, dtype=np.float32) - np.float32((length - 1) / 2)
    return np.stack([np.ones_like(x), x, x * x])


def encode(profile: Profile) -> str:
    """Return a profile as text (base64): one byte for the version, then float16 row by row."""
    return base64.b64encode(bytes([FINGERPRINT_VERSION]) + profile.astype("<f2").tobytes()).decode()


def decode(text: str) -> Profile | None:
    """Return the profile of a stored text, None for one of another version. ValueError for text that is none."""
    data = base64.b64decode(text, validate=True)
    if not data or data[0] != FINGERPRINT_VERSION:
        return None
    if (len(data) - 1) % (2 * FEATURES):
        raise ValueError(f"fingerprint of {len(data) - 1} bytes, expected a multiple of {2 * FEATURES}; ingest again")
    return np.frombuffer(data, dtype="<f2", offset=1).reshape(-1, FEATURES).astype(np.float32)
