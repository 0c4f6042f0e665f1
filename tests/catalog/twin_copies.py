"""Scans of generated patients, and every kind of copy that a data set may ship of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from datasets_registry.miniatures.phantom import make_anatomy, render
from imaging.resample import orient_ras
from imaging.volume import Volume

Spacing = tuple[float, float, float]


def patient_scan(seed: int, spacing_mm: Spacing | None = None) -> Volume:
    """Return the coarse scan of a patient in RAS; without a spacing its voxels and its range along z vary too."""
    rng = np.random.default_rng([seed, 77])
    wide, high = rng.uniform(8, 10), rng.choice([5.0, 6.5, 8.0, 9.0])
    low, top = rng.uniform(-235, -120), rng.uniform(110, 210)
    spacing = spacing_mm or (wide, wide, high)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-200 + rng.uniform(-4, 4), -160 + rng.uniform(-4, 4), low]
    extent = np.array([400, 310, top - low])
    x, y, z = (int(length) + 1 for length in extent / spacing)
    image, _ = render(make_anatomy(seed), (x, y, z), affine, seed=seed)
    return orient_ras(image)


def copies(image: Volume, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the voxels of copies that keep the grid, by what was done; axes in RAS as their header will claim."""
    rng = np.random.default_rng([seed, 78])
    hu = image.array.astype(np.float32)
    quarter = hu.shape[2] // 4
    noisy = hu + rng.normal(0, 5, hu.shape).astype(np.float32)
    return {
        "identical, float": hu,
        "noise of 5 HU": noisy,
        "flipped on three axes": hu[::-1, ::-1, ::-1],
        "transposed in the slice": hu.transpose(1, 0, 2),
        "another axis called superior": hu.transpose(2, 1, 0),
        "axes turned round": hu.transpose(1, 2, 0)[::-1],
        "last two axes changed": hu.transpose(0, 2, 1)[:, ::-1],
        "cropped to a half": hu[:, :, quarter:-quarter],
        "cropped on all sides": hu[1:-1, 1:-1, 3:-4],
        "window -160 to 240": np.clip(hu, -160, 240),
        "window, noise, crop, flips": np.clip(noisy, -175, 250)[1:-1, 1:-1, quarter:][::-1, :, ::-1],
    }


def resampled(image: Volume, to_mm: Spacing) -> NDArray[np.float32]:
    """Return the voxels on a grid of another spacing, by linear interpolation."""
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    hu: NDArray[np.float32] = zoom(image.array.astype(np.float32), spacing / to_mm, order=1)
    return hu
