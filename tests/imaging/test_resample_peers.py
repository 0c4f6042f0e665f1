"""The same scan through SimpleITK's and MONAI's resamplers: same place, same HU, same class."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging_samples import ORIENTATIONS, oriented_affine, turned_affine, world_of
from numpy.typing import NDArray

from imaging.resample import Grid, grid_for, orient_ras, resample_bits, resample_image, resample_nearest
from imaging.volume import Affine, Volume

FLIP = np.diag([-1.0, -1.0, 1.0])
"""RAS to SimpleITK's LPS."""


def blobs(shape: tuple[int, int, int], affine: Affine, seed: int) -> tuple[Volume, Volume]:
    """A smooth scan and a label of three balls, defined in world mm, so that any grid shows the same body."""
    rng = np.random.default_rng(seed)
    world = world_of(shape, affine)
    low, high = world.reshape(-1, 3).min(axis=0), world.reshape(-1, 3).max(axis=0)
    hu = np.full(shape, -200.0)
    label = np.zeros(shape, dtype=np.uint8)
    for value in (1, 2, 3):
        centre, radius = rng.uniform(low, high), rng.uniform(0.2, 0.4) * (high - low).max()
        distance = np.linalg.norm(world - centre, axis=-1)
        hu += 300 * np.exp(-((distance / radius) ** 2))
        label[distance < radius] = value
    return Volume(np.rint(hu).astype(np.int16), affine), Volume(label, affine)


def by_simpleitk(volume: Volume, grid: Grid, interpolator: int, outside: int) -> NDArray[np.int64]:
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
    unit = volume.affine[:3, :3] / volume.spacing_mm
    image.SetSpacing(volume.spacing_mm)
    image.SetDirection((FLIP @ unit).ravel().tolist())
    image.SetOrigin((FLIP @ volume.affine[:3, 3]).tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(list(grid.shape))
    resampler.SetOutputSpacing(grid.spacing_mm)
    resampler.SetOutputDirection((FLIP @ (grid.affine[:3, :3] / grid.spacing_mm)).ravel().tolist())
    resampler.SetOutputOrigin((FLIP @ grid.affine[:3, 3]).tolist())
    resampler.SetInterpolator(interpolator)
    resampler.SetDefaultPixelValue(outside)
    return np.asarray(sitk.GetArrayFromImage(resampler.Execute(image)).T, dtype=np.int64)


def strictly_inside(volume: Volume, grid: Grid) -> NDArray[np.bool_]:
    """Grid points between voxel centres: beyond the outermost ones each program has its own rule."""
    index = (world_of(grid.shape, grid.affine) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
    return np.asarray(((index > 1e-3) & (index < np.array(volume.shape) - 1 - 1e-3)).all(axis=-1))


def at_a_tie(volume: Volume, grid: Grid) -> NDArray[np.bool_]:
    """Grid points halfway between two voxel centres, where either is nearest."""
    index = (world_of(grid.shape, grid.affine) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
    return np.asarray((np.abs(index - np.floor(index) - 0.5) < 1e-3).any(axis=-1))


def check_agreement(image: Volume, label: Volume, grid: Grid) -> None:
    inside = strictly_inside(image, grid)
    ours = resample_image(image, grid).array.astype(np.int64)
    theirs = by_simpleitk(image, grid, sitk.sitkLinear, -1024)
    if inside.any():
        assert np.abs(ours - theirs)[inside].max() <= 1  # halves are rounded to even here, away from zero there
    certain = inside & ~at_a_tie(image, grid)
    if certain.any():
        ours = resample_nearest(label, grid).array.astype(np.int64)
        theirs = by_simpleitk(label, grid, sitk.sitkNearestNeighbor, 0)
        assert (ours == theirs)[certain].mean() >= 0.999


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.floats(0.6, 5.0)] * 3),
    st.tuples(*[st.floats(1.0, 3.0)] * 3),
    st.integers(0, 2**31),
)
def test_all_48_orientations_agree_with_simpleitk(
    turn: tuple[tuple[int, ...], tuple[float, ...]],
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    seed: int,
) -> None:
    affine = oriented_affine(spacing, (-35.0, 12.0, 240.0), *turn)
    image, label = blobs((9, 8, 7), affine, seed)
    grid = grid_for(image, target)
    check_agreement(image, label, grid)
    check_agreement(orient_ras(image), orient_ras(label), grid)


@pytest.mark.parametrize("degrees", [2.0, 14.0, 30.0])
def test_oblique_scans_agree_with_simpleitk(degrees: float) -> None:
    affine = turned_affine((0.9, 1.4, 2.6), degrees)
    image, label = blobs((14, 12, 10), affine, seed=4)
    check_agreement(image, label, grid_for(image, (1.5, 1.5, 1.5)))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "IPL"])
def test_monai_spacing_gives_the_same_hu(axes: str) -> None:
    """MONAI's Orientation and Spacing on the same scan: its grid is ours, HU differ by rounding only."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Orientation, Spacing

    affine = {
        "RAS": oriented_affine((0.8, 1.1, 2.5), (3.0, -8.0, 60.0)),
        "LPS": oriented_affine((0.8, 1.1, 2.5), (3.0, -8.0, 60.0), signs=(-1, -1, 1)),
        "IPL": oriented_affine((2.5, 1.1, 0.8), (3.0, -8.0, 60.0), order=(2, 1, 0), signs=(-1, -1, -1)),
    }[axes]
    image, _ = blobs((20, 18, 16) if axes != "IPL" else (16, 18, 20), affine, seed=1)
    grid = grid_for(image, (1.5, 1.5, 1.5))
    ours = resample_image(image, grid).array.astype(float)
    tensor = MetaTensor(torch.from_numpy(image.array[None].astype(np.float32)), affine=torch.from_numpy(affine))
    theirs = Spacing((1.5, 1.5, 1.5), mode="bilinear")(Orientation("RAS", labels=None)(tensor))
    np.testing.assert_allclose(np.asarray(theirs.affine), grid.affine, atol=1e-3)
    assert theirs.shape[1:] == grid.shape
    assert np.abs(ours - np.asarray(theirs[0])).max() <= 0.51  # ours are whole HU


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 2**31))
def test_a_mask_returns_to_the_scan_it_was_drawn_on(turn: tuple[tuple[int, ...], tuple[float, ...]], seed: int) -> None:
    """Lake grid and back: where the lake is at least as fine, every voxel of the original grid is as it was."""
    affine = oriented_affine((1.5, 3.0, 4.5), (20.0, -7.0, 100.0), *turn)
    _, label = blobs((7, 6, 5), affine, seed)
    bits = np.where(label.array > 0, np.uint32(1) << label.array.astype(np.uint32), np.uint32(0))[None]
    lake = grid_for(label, (1.5, 1.5, 1.5))
    there = resample_bits(bits, label.affine, lake)
    back = resample_bits(there, lake.affine, Grid.of(label))
    np.testing.assert_array_equal(back, bits)
