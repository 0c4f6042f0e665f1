"""Volumes to measure on: a made one of fixed size, class bits of the phantom on the same grid, and a real CT if any."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from datasets_registry.miniatures.phantom import make_anatomy, render
from imaging.nifti import read_nifti
from imaging.resample import grid_for, orient_ras, resample_image
from imaging.volume import Volume

SHAPE = (300, 300, 300)
SPACING_MM = (1.5, 1.5, 1.5)
REAL = "crlm_ct_1004_unlabelled/ct.nii.gz"


@cache
def made_scan() -> Volume:
    """Return a body-shaped volume of smoothed noise in HU, with scanner noise, air around it: it packs like a CT."""
    rng = np.random.default_rng(0)
    tissue = gaussian_filter(rng.normal(0, 1, SHAPE).astype(np.float32), 6) * 2500 + 40
    x, y, _ = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((x - 150) / 130) ** 2 + ((y - 150) / 95) ** 2 < 1
    noise = rng.normal(0, 12, SHAPE)
    hu = np.where(body, tissue + noise, -1000 + 0.4 * noise)
    return Volume(hu.clip(-1024, 3071).astype(np.int16), np.diag([*SPACING_MM, 1.0]))


@cache
def made_bits() -> NDArray[np.uint32]:
    """Return (1, X, Y, Z) class bits of a phantom with all its organs, on the grid of `made_scan`."""
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = [-n * spacing / 2 for n, spacing in zip(SHAPE, SPACING_MM, strict=True)]
    return render(make_anatomy(3), SHAPE, affine)[1]


@cache
def real_scan() -> Volume | None:
    """Return an abdominal CT of 5 mm slices on the lake's grid, or None where the real scans are absent.

    They are looked for in `CTFACTORY_REAL_DATA` and in `../shared/data/real`.
    """
    beside = Path(__file__).parents[2] / "shared" / "data" / "real"
    path = Path(os.environ.get("CTFACTORY_REAL_DATA") or beside) / REAL
    if not path.is_file():
        return None
    image = orient_ras(read_nifti(path))
    on_grid = resample_image(image, grid_for(image, SPACING_MM))
    hu: NDArray[Any] = np.clip(on_grid.array, -1024, 32767).astype(np.int16)
    return on_grid.with_array(hu)
