"""Batches for training: the patches of a plan as the tensors that the network sees. The same (seed, step, rank) gives
the same batch, whatever was asked before and by which process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.augment import Change, apply_changes, check_possible, draw_change
from models.plan import Int3, Pick, SamplingPlan, TrainCase
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
    """What one step sees. classes: the output channels of the model, in order, that any of its patches annotates.

    image: (B, 1, X, Y, Z) float32, 0-1. bits: (B, W, X, Y, Z) int32, words of class bits. channels: the U taxonomy
    channels of `classes`. annotated: (B, U) bool. valid: (B, 1, X, Y, Z) bool, false where a patch leaves its scan.
    """

    case_ids: tuple[str, ...]
    classes: tuple[int, ...]
    channels: tuple[int, ...]
    image: Tensor
    bits: Tensor
    annotated: Tensor
    valid: Tensor

    @property
    def target(self) -> Tensor:
        """The masks of `classes`, (B, U, X, Y, Z) bool, where `bits` lie; see `unpack_masks`."""
        return unpack_masks(self.bits, self.channels)


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch on its way from the readers to the device, 6 bytes a voxel for 32 classes; `unpack` it there.

    hu: (B, X, Y, Z) int16, not windowed; this and `bits` lie in memory as the lake has them, X fastest.
    inside: for each patch the box of voxels inside its scan. changes: its augmentation. The others: see `Batch`.
    """

    case_ids: tuple[str, ...]
    classes: tuple[int, ...]
    channels: tuple[int, ...]
    hu: Tensor
    bits: Tensor
    annotated: Tensor
    inside: tuple[Box, ...]
    changes: tuple[Change, ...]
    hu_window: tuple[float, float]

    def to(self, device: torch.device | str) -> Packed:
        """Return the batch on `device`; from pinned memory, the copy goes on while this process does."""
        hu, bits, annotated = (part.to(device, non_blocking=True) for part in (self.hu, self.bits, self.annotated))
        return replace(self, hu=hu, bits=bits, annotated=annotated)

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
        return Batch(self.case_ids, self.classes, self.channels, image, bits, self.annotated.clone(), valid)


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
    """A batch that is decided on but not yet read: its number, its patches and what is changed in each."""

    number: int
    picks: tuple[Pick, ...]
    changes: tuple[Change, ...]


class PatchSampler:
    """Draws batches from a source by the plan of the settings; see `SamplingPlan` for what is drawn and refused."""

    def __init__(self, source: PatchSource, model: ModelSettings, train: TrainSettings) -> None:
        cases = source.cases()
        check_possible(model, train, {case.dataset for case in cases})
        self._train = train
        self._plan = SamplingPlan(cases, model, train)
        self.maker = BatchMaker(source, model)

    def draw(self, step: int, rank: int = 0) -> Drawn:
        """Decide on the batch of a step: the same for the same seed, step and rank (process of a distributed run)."""
        random = np.random.default_rng([self._train.seed, step, rank])
        picks = tuple(self._plan.draw(random) for _ in range(self._train.batch))
        return Drawn(step, picks, tuple(draw_change(random, self._train, pick.case.dataset) for pick in picks))

    def batch(self, step: int, rank: int = 0) -> Batch:
        """Return what the network sees at a step, read here and now; see `draw`."""
        return self.maker.make(self.draw(step, rank)).unpack()


class BatchMaker:
    """Reads what was drawn and makes tensors of it. This, not the plan, is what each reader process gets."""

    def __init__(self, source: PatchSource, model: ModelSettings) -> None:
        self._source = source
        self._model = model
        self._channels = model.channels
        self._output_of = {channel: output for output, channel in enumerate(self._channels)}

    def make(self, drawn: Drawn) -> Packed:
        """Return the batch that was drawn."""
        picks = drawn.picks
        outputs = sorted({self._output_of[c] for pick in picks for c in pick.case.annotated if c in self._output_of})
        channels = [self._channels[output] for output in outputs]
        patches = [self._read(pick) for pick in picks]
        return Packed(
            case_ids=tuple(pick.case.case_id for pick in picks),
            classes=tuple(outputs),
            channels=tuple(channels),
            hu=_stacked([image for image, _, _ in patches]),  # (B, X, Y, Z)
            bits=_stacked([bits.view(np.int32) for _, bits, _ in patches]),  # (B, W, X, Y, Z)
            annotated=torch.tensor([[c in pick.case.annotated for c in channels] for pick in picks]),  # (B, U)
            inside=tuple(box for _, _, box in patches),
            changes=drawn.changes,
            hu_window=self._model.hu_window,
        )

    def _read(self, pick: Pick) -> tuple[NDArray[np.int16], NDArray[np.uint32], Box]:
        try:
            return self._source.read(pick.case.case_id, pick.start, self._model.patch)
        except Exception as error:
            error.add_note(f"while reading {pick.case.case_id} at {pick.start}, {self._model.patch} voxels")
            raise


def _stacked(patches: Sequence[NDArray[Any]]) -> Tensor:
    """Return patches (..., X, Y, Z) as (B, ..., X, Y, Z) whose memory is in the order Z, Y, X, as the lake's is."""
    return torch.from_numpy(np.stack([patch.swapaxes(-1, -3) for patch in patches])).transpose(-1, -3)
