"""Whole-scan prediction: overlapping windows, blended logits, thresholded slab by slab so that memory stays bounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets_registry.taxonomy import class_info, class_names
from imaging.bits import Bits, empty_bits, set_channel
from models.checkpoint import ModelMetadata
from models.plan import Int3
from models.sampling import window_hu
from models.settings import ModelSettings
from models.universal import UniversalModel

AIR_HU = -1024


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a scan.

    bits: (W, X, Y, Z) uint32 by taxonomy channel. mean_prob: for each class asked for, the mean probability inside its
    mask, nan where the mask is empty.
    """

    bits: Bits
    mean_prob: dict[str, float]


def window_starts(length: int, patch: int, overlap: float) -> list[int]:
    """Return where windows of `patch` begin along an axis of `length` voxels: evenly spread, first 0, last at the end.

    Neighbours overlap by at least `overlap` of a window. A length of at most `patch` has one window at 0.
    """
    if length <= patch:
        return [0]
    stride = max(1, int(patch * (1 - overlap)))
    count = -(-(length - patch) // stride) + 1
    return [round(index * (length - patch) / (count - 1)) for index in range(count)]


def gaussian_weight(patch: Int3, sigma_share: float = 0.125) -> Tensor:
    """Return (X, Y, Z) weights, 1 in the middle and never below 1e-3, a Gaussian of sigma = share * size."""
    axes = []
    for size in patch:
        distance = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        axes.append(torch.exp(-0.5 * (distance / (sigma_share * size)) ** 2))
    x, y, z = axes
    return (x[:, None, None] * y[None, :, None] * z[None, None, :]).clamp(min=1e-3)


def predict_bits(
    model: UniversalModel,
    metadata: ModelMetadata | ModelSettings,
    image: NDArray[Any],
    *,
    overlap: float = 0.5,
    batch: int = 2,
    device: str = "cpu",
    classes: Sequence[str] | None = None,
) -> Prediction:
    """Return the masks of `image` (X, Y, Z) HU, RAS, on the grid of the model's spacing.

    classes: names wanted (all for None); only these are computed. overlap: share of a window its neighbour repeats.
    batch: windows a pass; PyTorch's CPU convolutions are about three times faster on two than on one.
    An image smaller than the window is surrounded by air. Logits of overlapping windows are averaged with Gaussian
    weights; a voxel belongs to a class where that is above 0. Raises ValueError for NaN or infinite voxels and for a
    wrong number of axes, KeyError for a class the model does not have.
    """
    settings = metadata if isinstance(metadata, ModelSettings) else metadata.model
    if not 0 <= overlap < 1 or batch < 1:
        raise ValueError(f"overlap {overlap}, batch {batch}: expected 0 <= overlap < 1 and batch >= 1")
    names = settings.select(classes)
    padded, inner = _pad(_checked(image), settings.patch)
    model = model.to(device).eval()
    bits = empty_bits(image.shape, len(class_names()))
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    with torch.inference_mode():
        for start, slab in _slabs(model, padded, settings, names, overlap, batch, torch.device(device)):
            kept = slice(max(start, inner[0].start), min(start + slab.shape[1], inner[0].stop))
            if kept.start >= kept.stop:
                continue
            logits = slab[:, kept.start - start : kept.stop - start, inner[1], inner[2]]  # (C, x, Y, Z)
            into = bits[:, kept.start - inner[0].start : kept.stop - inner[0].start]
            masks = logits > 0
            counts += masks.sum(dim=(1, 2, 3)).cpu().numpy()
            sums += (logits.sigmoid() * masks).sum(dim=(1, 2, 3)).cpu().numpy()
            for name, mask in zip(names, masks.cpu().numpy(), strict=True):
                set_channel(into, class_info(name).channel, mask)
    means = np.divide(sums, counts, out=np.full(len(names), np.nan), where=counts > 0)
    return Prediction(bits, dict(zip(names, means.tolist(), strict=True)))


def _checked(image: NDArray[Any]) -> NDArray[np.float32]:
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image of shape {image.shape}, expected three axes (X, Y, Z) with voxels")
    values = np.asarray(image, dtype=np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"image holds {int(bad.sum())} NaN or infinite voxels, the first at {first}; expected finite HU"
        )
    return values


def _pad(image: NDArray[np.float32], patch: Int3) -> tuple[NDArray[np.float32], tuple[slice, slice, slice]]:
    """Return the image with air around it up to the patch's size, and where the image lies in it."""
    widths = [
        ((max(0, p - n)) // 2, max(0, p - n) - max(0, p - n) // 2) for n, p in zip(image.shape, patch, strict=True)
    ]
    x, y, z = (slice(low, low + n) for (low, _), n in zip(widths, image.shape, strict=True))
    return np.pad(image, widths, constant_values=AIR_HU), (x, y, z)


def _slabs(
    model: UniversalModel,
    image: NDArray[np.float32],
    settings: ModelSettings,
    names: Sequence[str],
    overlap: float,
    batch: int,
    device: torch.device,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first x, blended logits (C, x, Y, Z)) of slabs that no later window touches, in order of x."""
    px, py, pz = settings.patch
    _, ny, nz = image.shape
    starts_x = window_starts(image.shape[0], px, overlap)
    plane = list(itertools.product(window_starts(ny, py, overlap), window_starts(nz, pz, overlap)))
    weight = gaussian_weight(settings.patch).to(device)
    total = torch.zeros((len(names), px, ny, nz), device=device)
    weights = torch.zeros((px, ny, nz), device=device)
    for number, x in enumerate(starts_x):
        for first in range(0, len(plane), batch):
            group = plane[first : first + batch]
            windows = np.stack([image[x : x + px, y : y + py, z : z + pz] for y, z in group])
            inputs = window_hu(windows, settings.hu_window).unsqueeze(1).to(device)  # (B, 1, px, py, pz)
            logits = model(inputs, names).float()  # (B, C, px, py, pz)
            for own, (y, z) in zip(logits, group, strict=True):
                total[:, :, y : y + py, z : z + pz] += own * weight
                weights[:, y : y + py, z : z + pz] += weight
        done = (starts_x[number + 1] if number + 1 < len(starts_x) else x + px) - x
        yield x, total[:, :done] / weights[:done]
        total = torch.cat([total[:, done:], torch.zeros_like(total[:, :done])], dim=1)
        weights = torch.cat([weights[done:], torch.zeros_like(weights[:done])], dim=0)
