"""Batches for training: the patches of a plan as the tensors that the network sees. The same (seed, step, rank) gives
the same batch, whatever was asked before and by which process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.augment import Change, apply_changes, check_possible, draw_change
from models.plan import Int3, SamplingPlan, TrainCase
from models.settings import ModelSettings, TrainSettings

Box = tuple[slice, slice, slice]
"""Voxels along X, Y and Z."""


class PatchSource(Protocol):
    """Where patches come from; sent to each reader process, which opens its own handles and only calls `read`."""

    def cases(self) -> Sequence[TrainCase]:
        """Return every case, always in the same order."""

    def read(self, case_id: str, start_xyz: Int3, size_xyz: Int3) -> tuple[NDArray[np.int16], NDArray[np.uint32], Box]:
        """Return image HU (X, Y, Z), class bits (W, X, Y, Z) and the part inside the scan, of a box that may leave it.

        The part is within the box, so all of it is (0, X), (0, Y), (0, Z) as slices.
        """


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees. classes: the classes of the model, in its order, that any of its patches annotates.

    image: (B, 1, X, Y, Z) float32, 0-1. bits: (B, W, X, Y, Z) int32, words of class bits. channels: the U taxonomy
    channels of `classes`. annotated: (B, U) bool. weights: (B, U) float32, how much each pair counts in the loss: 1, or
    `pseudo_weight` where only a model looked. valid: (B, 1, X, Y, Z) bool, false where a patch leaves its scan.
    """

    case_ids: tuple[str, ...]
    classes: tuple[str, ...]
    channels: tuple[int, ...]
    image: Tensor
    bits: Tensor
    annotated: Tensor
    weights: Tensor
    valid: Tensor

    @property
    def target(self) -> Tensor:
        """The masks of `classes`, (B, U, X, Y, Z) bool, where `bits` lie; see `unpack_masks`."""
        return unpack_masks(self.bits, self.channels)


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch on its way from the readers to the device, 6 bytes a voxel for 32 classes; `unpack` it there.

    hu: (B, X, Y, Z) int16, not windowed; this and `bits` lie in memory as the lake has them, X fastest. That memory is
    used again for a later batch, see `open_batches`; what `unpack` returns is not.
    inside: for each patch the box of voxels inside its scan. changes: its augmentation. The others: see `Batch`.
    """

    case_ids: tuple[str, ...]
    classes: tuple[str, ...]
    channels: tuple[int, ...]
    hu: Tensor
    bits: Tensor
    annotated: Tensor
    weights: Tensor
    inside: tuple[Box, ...]
    changes: tuple[Change, ...]
    hu_window: tuple[float, float]

    def to(self, device: torch.device | str) -> Packed:
        """Return the batch on `device`; from pinned memory, the copy goes on while this process does."""
        parts = (self.hu, self.bits, self.annotated, self.weights)
        hu, bits, annotated, weights = (part.to(device, non_blocking=True) for part in parts)
        return replace(self, hu=hu, bits=bits, annotated=annotated, weights=weights)

    def unpack(self) -> Batch:
        """Return what the network sees, augmented, in new memory on the device where this batch lies."""
        hu = self.hu.unsqueeze(1).contiguous()  # (B, 1, X, Y, Z), turned round before it is widened
        valid = torch.zeros(hu.shape, dtype=torch.bool, device=hu.device)
        for row, box in enumerate(self.inside):
            valid[(row, 0, *box)] = True
        image, bits, valid = apply_changes(
            window_hu(hu, self.hu_window),
            self.bits.clone(memory_format=torch.contiguous_format),  # (B, W, X, Y, Z)
            valid,
            self.changes,
        )
        annotated, weights = self.annotated.clone(), self.weights.clone()
        return Batch(self.case_ids, self.classes, self.channels, image, bits, annotated, weights, valid)


def unpack_masks(bits: Tensor, channels: Sequence[int]) -> Tensor:
    """Return masks (B, len(channels), X, Y, Z) bool, on the device of `bits`.

    bits: (B, W, X, Y, Z) int32, channel c is bit c % 32 of word c // 32.
    """
    masks = torch.empty((bits.shape[0], len(channels), *bits.shape[2:]), dtype=torch.bool, device=bits.device)
    # A byte at a time, a quarter of the memory to go through; the lowest byte of a word comes first.
    of_words = bits.view(torch.uint8).reshape(*bits.shape, 4)  # (B, W, X, Y, Z, 4)
    planes: dict[int, Tensor] = {}
    for place, channel in enumerate(channels):
        byte, bit = divmod(channel, 8)
        if byte not in planes:
            planes[byte] = of_words[:, byte // 4, ..., byte % 4].contiguous()  # (B, X, Y, Z)
        masks[:, place] = planes[byte] & (1 << bit)  # as bool: whatever is not 0
    return masks


def window_hu(image: NDArray[Any] | Tensor, hu_window: tuple[float, float]) -> Tensor:
    """Return HU clipped to the window and scaled to 0-1, float32, in the shape given."""
    low, high = hu_window
    return (torch.as_tensor(image).to(torch.float32).clamp(low, high) - low) / (high - low)


Place = tuple[str, Int3]
"""A patch to read: its case, and the voxel X Y Z at which it begins."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A batch that is decided on but not yet read: its number and, for each patch, where it lies and what is changed.

    classes, channels, annotated, weights: see `Batch`.
    """

    number: int
    places: tuple[Place, ...]
    classes: tuple[str, ...]
    channels: tuple[int, ...]
    annotated: NDArray[np.bool_]
    weights: NDArray[np.float32]
    changes: tuple[Change, ...]


@dataclass(frozen=True, eq=False)
class Voxels:
    """Memory that the patches of a batch are read into. hu: (B, Z, Y, X) int16. bits: (B, W, Z, Y, X) uint32."""

    hu: NDArray[np.int16]
    bits: NDArray[np.uint32]


class PatchSampler:
    """Draws batches from a source by the plan of the settings; see `SamplingPlan` for what is drawn and refused."""

    def __init__(self, source: PatchSource, model: ModelSettings, train: TrainSettings) -> None:
        cases = source.cases()
        check_possible(model, train, {case.dataset for case in cases})
        self._train = train
        self._plan = SamplingPlan(cases, model, train)
        self._channels = dict(zip(model.classes, model.channels, strict=True))
        self._hu_window = model.hu_window
        self.reader = PatchReader(source, model, train)

    def draw(self, step: int, rank: int = 0) -> Drawn:
        """Decide on the batch of a step: the same for the same seed, step and rank (process of a distributed run)."""
        random = np.random.default_rng([self._train.seed, step, rank])
        cases, places = [], []
        for _ in range(self._train.batch):
            pick = self._plan.draw(random)
            cases.append(pick.case)
            places.append((pick.case.case_id, pick.start))
        annotated = {channel for case in cases for channel in case.annotated}
        classes = {name: channel for name, channel in self._channels.items() if channel in annotated}
        channels = tuple(classes.values())
        return Drawn(
            number=step,
            places=tuple(places),
            classes=tuple(classes),
            channels=channels,
            annotated=np.array([[c in case.annotated for c in channels] for case in cases]),
            weights=np.array(
                [[self._train.pseudo_weight if c in case.pseudo else 1.0 for c in channels] for case in cases],
                np.float32,
            ),
            changes=tuple(draw_change(random, self._train, case.dataset) for case in cases),
        )

    def pack(self, drawn: Drawn, voxels: Voxels, inside: tuple[Box, ...]) -> Packed:
        """Return the batch that was drawn, once its voxels are read; it lies in their memory."""
        return Packed(
            case_ids=tuple(case_id for case_id, _ in drawn.places),
            classes=drawn.classes,
            channels=drawn.channels,
            hu=torch.from_numpy(voxels.hu).transpose(-1, -3),  # (B, X, Y, Z)
            bits=torch.from_numpy(voxels.bits.view(np.int32)).transpose(-1, -3),  # (B, W, X, Y, Z)
            annotated=torch.from_numpy(drawn.annotated),  # (B, U)
            weights=torch.from_numpy(drawn.weights),  # (B, U)
            inside=inside,
            changes=drawn.changes,
            hu_window=self._hu_window,
        )

    def batch(self, step: int, rank: int = 0) -> Batch:
        """Return what the network sees at a step, read here and now; see `draw`."""
        drawn, voxels = self.draw(step, rank), self.reader.voxels()
        return self.pack(drawn, voxels, self.reader.read(drawn.places, voxels)).unpack()


class PatchReader:
    """Reads the patches that were drawn. This, not the plan, is what each reader process gets."""

    def __init__(self, source: PatchSource, model: ModelSettings, train: TrainSettings) -> None:
        self._source = source
        self._patch = model.patch
        self._batch = train.batch
        self._words = max(model.channels) // 32 + 1

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels of one batch."""
        return self._batch * math.prod(self._patch) * (2 + 4 * self._words)

    def voxels(self, memory: memoryview | None = None) -> Voxels:
        """Return the voxels of one batch in `memory`, of `nbytes`; in fresh memory, not yet written, without."""
        held = np.empty(self.nbytes, np.uint8) if memory is None else np.frombuffer(memory, np.uint8)
        x, y, z = self._patch
        size = 4 * self._batch * self._words * math.prod(self._patch)
        return Voxels(
            hu=held[size:].view(np.int16).reshape(self._batch, z, y, x),
            bits=held[:size].view(np.uint32).reshape(self._batch, self._words, z, y, x),
        )

    def read(self, places: Sequence[Place], voxels: Voxels) -> tuple[Box, ...]:
        """Read the patches at `places` into `voxels`; return the part of each that lies inside its scan."""
        found = []
        for row, (case_id, start) in enumerate(places):
            try:
                image, bits, inside = self._source.read(case_id, start, self._patch)
            except Exception as error:
                error.add_note(f"while reading {case_id} at {start}, {self._patch} voxels")
                raise
            voxels.hu[row] = image.transpose(2, 1, 0)  # as the lake has it, so this copies without turning
            words = bits.transpose(0, 3, 2, 1)[: self._words]  # others hold no class of the model
            voxels.bits[row, : len(words)] = words
            voxels.bits[row, len(words) :] = 0
            found.append(inside)
        return tuple(found)
