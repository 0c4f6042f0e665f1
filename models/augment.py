"""Augmentation: decided on the host with the patches, done where the network is.

The published recipe (arXiv 2301.00785): zoom for some data sets, quarter turns in the axial plane, shifted intensities.
Nothing is mirrored, for that would turn left organs into right ones; a turn leaves them on their side of the body.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets_registry.cards import list_cards
from models.settings import ModelSettings, TrainSettings

AXIAL = (-3, -2)
"""X and Y of a patch (..., X, Y, Z)."""


@dataclass(frozen=True)
class Change:
    """What happens to one patch, in this order; as built, nothing.

    zoom: about the patch's centre, 1 or more. turns: quarter turns in the axial plane, from X towards Y.
    gain, shift: the image, 0-1, becomes image * gain + shift.
    """

    zoom: float = 1.0
    turns: int = 0
    gain: float = 1.0
    shift: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether voxels change their place."""
        return self.turns != 0 or self.zoom != 1.0


def draw_change(random: np.random.Generator, train: TrainSettings, dataset: str) -> Change:
    """Return what `random` decides for a patch of `dataset`; a share of 0 takes no number for zoom or turns."""
    gain, shift, turns, zoom = 1.0, 0.0, 0, 1.0
    if random.random() < train.shift_share:
        shift = float(random.uniform(-train.shift, train.shift))
        gain = 1 + float(random.uniform(-train.stretch, train.stretch))
    if train.rotate_share and random.random() < train.rotate_share:
        turns = int(random.integers(1, 4))
    if train.zoom_share and dataset in train.zoom_datasets and random.random() < train.zoom_share:
        zoom = float(random.uniform(*train.zoom_range))
    return Change(zoom, turns, gain, shift)


def check_possible(model: ModelSettings, train: TrainSettings, datasets: Collection[str]) -> None:
    """Raise ValueError for turns that would change a patch's shape or spacing, or zoom of an unknown data set.

    datasets: of the cases. A data set that has a card but no case is known: a preset names more than one lake holds.
    """
    if train.rotate_share and (model.patch[0] != model.patch[1] or model.spacing_mm[0] != model.spacing_mm[1]):
        raise ValueError(
            f"train.rotate_share: {train.rotate_share} with patches of {model.patch} voxels of {model.spacing_mm} mm, "
            "expected the same size and spacing along X and Y; make them equal or set rotate_share to 0"
        )
    known = {*datasets, *list_cards()}
    unknown = sorted(set(train.zoom_datasets) - known)
    if unknown:
        raise ValueError(
            f"train.zoom_datasets: {', '.join(unknown)} not among the known data sets ({', '.join(sorted(known))}); "
            "correct the name or leave it out"
        )


def apply_changes(
    image: Tensor, bits: Tensor, valid: Tensor, changes: Sequence[Change]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, bits and valid with the change of each patch, on the device where they lie; they stay as they are.

    image: (B, 1, X, Y, Z) float32, zoomed linearly. bits (B, W, X, Y, Z) int32 and valid (B, 1, X, Y, Z) bool: the
    nearest voxel's, so that a voxel outside the scan stays unknown wherever it goes.
    """
    if all(change == Change() for change in changes):
        return image, bits, valid
    image = image.clone()
    if any(change.moves for change in changes):
        bits, valid = bits.clone(), valid.clone()
    for row, change in enumerate(changes):
        if change.zoom != 1.0:
            image[row] = _zoomed(image[row], change.zoom)
            bits[row] = _nearest(bits[row], change.zoom)
            valid[row] = _nearest(valid[row], change.zoom)
        if change.turns:
            for of_batch in (image, bits, valid):
                of_batch[row] = torch.rot90(of_batch[row], change.turns, AXIAL)
        if change.gain != 1.0 or change.shift != 0.0:
            image[row] = image[row] * change.gain + change.shift
    return image, bits, valid


def _seen_at(size: int, zoom: float) -> NDArray[np.float64]:
    """Return, for each of `size` voxels along an axis, the place in the patch that is seen there."""
    centre = (size - 1) / 2
    return centre + (np.arange(size, dtype=np.float64) - centre) / zoom


def _zoomed(image: Tensor, zoom: float) -> Tensor:
    """Return an image (1, X, Y, Z) magnified about its centre, linear along each axis."""
    for axis in (-3, -2, -1):
        size = image.shape[axis]
        at = _seen_at(size, zoom)
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, size - 1)
        share = torch.from_numpy((at - below).astype(np.float32)).to(image.device)
        share = share.reshape(-1, *(1,) * (-1 - axis))  # along `axis`
        low, high = (image.index_select(axis, torch.from_numpy(part).to(image.device)) for part in (below, above))
        image = low + (high - low) * share
    return image


def _nearest(voxels: Tensor, zoom: float) -> Tensor:
    """Return voxels (W, X, Y, Z) magnified about their centre, each the one nearest to it."""
    for axis in (-3, -2, -1):
        at = np.floor(_seen_at(voxels.shape[axis], zoom) + 0.5).astype(np.int64)
        voxels = voxels.index_select(axis, torch.from_numpy(at).to(voxels.device))
    return voxels
