"""Batches for training: the patches of a plan as the tensors that the network sees. The same (seed, step, rank) gives
the same batch, whatever was asked before and by which process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.plan import Int3, Pick, SamplingPlan, TrainCase
from models.settings import ModelSettings, TrainSettings


class PatchSource(Protocol):
    """Where patches come from; sent to each reader process, which opens its own handles and only calls `read`."""

    def cases(self) -> Sequence[TrainCase]:
        """Return every case, always in the same order."""

    def read(
        self, case_id: str, start_xyz: Int3, size_xyz: Int3
    ) -> tuple[NDArray[np.int16], NDArray[np.uint32], NDArray[np.bool_]]:
        """Return (image HU (X, Y, Z), class bits (W, X, Y, Z), valid (X, Y, Z)) of a box that may leave the scan."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees. classes: the classes of the model, in its order, that any of its patches annotates.

    image: (B, 1, X, Y, Z) float32, 0-1. bits: (B, W, X, Y, Z) int32, words of class bits: a voxel of 32 classes travels
    between processes and to the device in 4 bytes instead of 32. channels: the U taxonomy channels of `classes`.
    annotated: (B, U) bool. valid: (B, 1, X, Y, Z) bool.
    """

    case_ids: tuple[str, ...]
    classes: tuple[str, ...]
    channels: tuple[int, ...]
    image: Tensor
    bits: Tensor
    annotated: Tensor
    valid: Tensor

    @property
    def target(self) -> Tensor:
        """The masks of `classes`, (B, U, X, Y, Z) bool, where `bits` lie; see `unpack_masks`."""
        return unpack_masks(self.bits, self.channels)


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


@dataclass(frozen=True, eq=False)
class Drawn:
    """A batch that is decided on but not yet read: its number, its patches and the generator for all that follows."""

    number: int
    picks: tuple[Pick, ...]
    random: np.random.Generator


class PatchSampler:
    """Draws batches from a source by the plan of the settings; see `SamplingPlan` for what is drawn and refused."""

    def __init__(self, source: PatchSource, model: ModelSettings, train: TrainSettings) -> None:
        self._train = train
        self._plan = SamplingPlan(source.cases(), model, train)
        self.maker = BatchMaker(source, model, train)

    def draw(self, step: int, rank: int = 0) -> Drawn:
        """Decide on the batch of a step: the same for the same seed, step and rank (process of a distributed run)."""
        random = np.random.default_rng([self._train.seed, step, rank])
        return Drawn(step, tuple(self._plan.draw(random) for _ in range(self._train.batch)), random)

    def batch(self, step: int, rank: int = 0) -> Batch:
        """Return the batch of a step, read here and now; see `draw`."""
        return self.maker.make(self.draw(step, rank))


class BatchMaker:
    """Reads what was drawn and makes tensors of it. This, not the plan, is what each reader process gets."""

    def __init__(self, source: PatchSource, model: ModelSettings, train: TrainSettings) -> None:
        self._source = source
        self._model = model
        self._train = train
        self._channels = dict(zip(model.classes, model.channels, strict=True))

    def make(self, drawn: Drawn) -> Batch:
        """Return the batch that was drawn."""
        picks = drawn.picks
        annotated = {channel for pick in picks for channel in pick.case.annotated}
        classes = {name: channel for name, channel in self._channels.items() if channel in annotated}
        channels = tuple(classes.values())
        size = self._model.patch
        images = torch.empty((len(picks), 1, *size))
        words: list[Tensor] = []
        valids = torch.empty((len(picks), 1, *size), dtype=torch.bool)
        for row, pick in enumerate(picks):
            # the lake's patches run along X; turned round before they are widened
            image, bits, valid = self._read(pick)
            images[row, 0] = self._augment(window_hu(np.ascontiguousarray(image), self._model.hu_window), drawn.random)
            words.append(torch.from_numpy(np.ascontiguousarray(bits).view(np.int32)))
            valids[row, 0] = torch.from_numpy(valid)
        return Batch(
            case_ids=tuple(pick.case.case_id for pick in picks),
            classes=tuple(classes),
            channels=channels,
            image=images,  # (B, 1, X, Y, Z)
            bits=torch.stack(words),  # (B, W, X, Y, Z)
            annotated=torch.tensor([[c in pick.case.annotated for c in channels] for pick in picks]),  # (B, U)
            valid=valids,  # (B, 1, X, Y, Z)
        )

    def _read(self, pick: Pick) -> tuple[NDArray[np.int16], NDArray[np.uint32], NDArray[np.bool_]]:
        try:
            return self._source.read(pick.case.case_id, pick.start, self._model.patch)
        except Exception as error:
            error.add_note(f"while reading {pick.case.case_id} at {pick.start}, {self._model.patch} voxels")
            raise

    def _augment(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Return the image with its intensities shifted and stretched; mirroring would swap left and right."""
        if random.random() >= self._train.shift_share:
            return image
        shift, scale = random.uniform(-self._train.shift, self._train.shift, 2)
        return image * (1 + float(scale)) + float(shift)
