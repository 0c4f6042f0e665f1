"""Patches for training: which case, where in it, and the tensors the network sees. The same (seed, step) gives the same
batch, whatever was asked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imaging.bits import unpack
from models.settings import ModelSettings, TrainSettings

Int3 = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class TrainCase:
    """One scan as the sampler sees it.

    annotated: taxonomy channels somebody looked for (absent ones too). shape: voxels X Y Z. foreground: for a channel,
    some of its voxels, (n, 3) X Y Z; a channel that is absent here is missing or has no rows.
    """

    case_id: str
    annotated: tuple[int, ...]
    shape: Int3
    foreground: Mapping[int, NDArray[np.integer[Any]]]


class PatchSource(Protocol):
    """Where patches come from; `read` is called from several threads."""

    def cases(self) -> Sequence[TrainCase]:
        """Return every case, always in the same order."""

    def read(
        self, case_id: str, start_xyz: Int3, size_xyz: Int3
    ) -> tuple[NDArray[np.int16], NDArray[np.uint32], NDArray[np.bool_]]:
        """Return (image HU (X, Y, Z), class bits (W, X, Y, Z), valid (X, Y, Z)) of a box that may leave the scan."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees. classes: the output channels of the model, in order, that any of its patches annotates.

    image: (B, 1, X, Y, Z) float32, 0-1. target: (B, U, X, Y, Z) bool, U = len(classes). annotated: (B, U) bool.
    valid: (B, 1, X, Y, Z) bool.
    """

    case_ids: tuple[str, ...]
    classes: tuple[int, ...]
    image: Tensor
    target: Tensor
    annotated: Tensor
    valid: Tensor


def window_hu(image: NDArray[Any] | Tensor, hu_window: tuple[float, float]) -> Tensor:
    """Return HU clipped to the window and scaled to 0-1, float32, in the shape given."""
    low, high = hu_window
    return (torch.as_tensor(image).to(torch.float32).clamp(low, high) - low) / (high - low)


class PatchSampler:
    """Draws batches from a source.

    A share `foreground` of patches is centred near a voxel of a class drawn evenly over the classes that occur, in a
    case drawn evenly over the cases that have it, so rare classes are seen as often as common ones. The others lie
    anywhere in a case drawn evenly. Patches stay inside a scan that is large enough; a smaller one lies in their
    middle.
    Raises ValueError when no case annotates a class of the model.
    """

    def __init__(self, source: PatchSource, model: ModelSettings, train: TrainSettings) -> None:
        self._source = source
        self._model = model
        self._train = train
        output_of = {channel: output for output, channel in enumerate(model.channels)}
        self._cases = [case for case in source.cases() if output_of.keys() & set(case.annotated)]
        if not self._cases:
            raise ValueError(
                f"no case annotates any of the {len(model.classes)} classes of the model ({len(source.cases())} cases "
                "given); check the query or the model's classes"
            )
        self._output_of = output_of
        self._with: dict[int, list[int]] = {}
        for index, case in enumerate(self._cases):
            for channel in sorted(set(case.annotated) & output_of.keys()):
                if len(case.foreground.get(channel, ())):
                    self._with.setdefault(channel, []).append(index)
        self._present = sorted(self._with)

    def batch(self, step: int, rank: int = 0) -> Batch:
        """Return the batch of a step: the same for the same seed, step and rank (process of a distributed run)."""
        random = np.random.default_rng([self._train.seed, step, rank])
        picks = [self._pick(random) for _ in range(self._train.batch)]
        outputs = sorted({self._output_of[c] for case, _ in picks for c in case.annotated if c in self._output_of})
        channels = [self._model.channels[output] for output in outputs]
        images, targets, valids = [], [], []
        for case, start in picks:
            image, bits, valid = self._source.read(case.case_id, start, self._model.patch)
            images.append(self._augment(window_hu(image, self._model.hu_window), random))
            targets.append(torch.from_numpy(unpack(bits, channels)))
            valids.append(torch.from_numpy(np.ascontiguousarray(valid)))
        return Batch(
            case_ids=tuple(case.case_id for case, _ in picks),
            classes=tuple(outputs),
            image=torch.stack(images).unsqueeze(1),  # (B, 1, X, Y, Z)
            target=torch.stack(targets),  # (B, U, X, Y, Z)
            annotated=torch.tensor([[c in case.annotated for c in channels] for case, _ in picks]),  # (B, U)
            valid=torch.stack(valids).unsqueeze(1),  # (B, 1, X, Y, Z)
        )

    def _pick(self, random: np.random.Generator) -> tuple[TrainCase, Int3]:
        patch = self._model.patch
        if self._present and random.random() < self._train.foreground:
            channel = self._present[random.integers(len(self._present))]
            case = self._cases[self._with[channel][random.integers(len(self._with[channel]))]]
            voxels = case.foreground[channel]
            voxel = voxels[random.integers(len(voxels))]
            # the voxel falls in the middle half of the patch, not always at its centre
            wanted = [
                int(v) - size // 2 + int(random.integers(-(size // 4), size // 4 + 1))
                for v, size in zip(voxel, patch, strict=True)
            ]
        else:
            case = self._cases[random.integers(len(self._cases))]
            wanted = [int(random.integers(max(0, n - size) + 1)) for n, size in zip(case.shape, patch, strict=True)]
        x, y, z = (
            min(max(at, 0), n - size) if n >= size else -((size - n) // 2)
            for at, n, size in zip(wanted, case.shape, patch, strict=True)
        )
        return case, (x, y, z)

    def _augment(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Return the image with its intensities shifted and stretched; mirroring would swap left and right."""
        if random.random() >= self._train.shift_share:
            return image
        shift, scale = random.uniform(-self._train.shift, self._train.shift, 2)
        return image * (1 + float(scale)) + float(shift)
