"""What a prediction says about itself, summed up while slabs and windows go by: doubt at surfaces, and agreement."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imaging.bits import WORD_BITS
from models.gpu_kernels import gpu_kernels
from models.infer_windows import gaussian_weight
from models.plan import Int3

MOST_VARIANTS = 4
VARIANT_HU = 15.0
"""Offset, or standard deviation of the noise, that a test-time variant adds."""
VARIANT_VOXELS = 4
"""How far a test-time variant is shifted along each axis; networks halve their grids, which then fall elsewhere."""


def binary_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in bits of a yes or no of probability sigmoid(logits): 1 at 0, falling towards both sides."""
    # log(1 + e^l) - l p, which stays exact where the probability rounds to 0 or 1
    return (nn.functional.softplus(logits) - logits * logits.sigmoid()) / math.log(2)


class Total:
    """A sum (C,) float64 that lies where what is added lies: to send zeros to a GPU, the host would wait for it."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._found: Tensor | None = None

    def add(self, more: Tensor) -> None:
        """Add (C,)."""
        self._found = more.double() if self._found is None else self._found.to(more.device) + more

    @property
    def found(self) -> Tensor:
        """The sum so far."""
        return torch.zeros(self._length, dtype=torch.float64) if self._found is None else self._found


class SurfaceEntropy:
    """Mean binary entropy over the surface voxels of each mask, of slabs that follow one another along an axis.

    A surface voxel is one of the mask with one of its 6 neighbours outside the mask. What lies beyond the scan is no
    outside: where a scan cuts an organ there is no boundary to doubt. Two planes are kept between slabs, so the result
    does not depend on where slabs end.
    channels: the bit of each row of the logits. axis: 0, 1 or 2.
    """

    def __init__(self, channels: Sequence[int], axis: int) -> None:
        self._channels = list(channels)
        self._axis = axis
        self._sums, self._counts = Total(len(channels)), Total(len(channels))
        self._words: Tensor | None = None  # the last two planes
        self._logits: Tensor | None = None  # of the last plane, which waits for the one behind it

    def add(self, logits: Tensor, words: Tensor) -> None:
        """Take the next slab: logits (C, x, y, z), and as int32 words (W, x, y, z) the bits where they are > 0."""
        along = 1 + self._axis
        waiting = 0
        every = words
        if self._words is not None:
            waiting = self._words.shape[along]
            every = torch.cat([self._words.to(words.device), words], dim=along)
        surface = _surface(every)
        if self._logits is not None:
            self._count(self._logits.to(words.device), surface.narrow(along, waiting - 1, 1))
        length = words.shape[along]
        self._count(logits.narrow(along, 0, length - 1), surface.narrow(along, waiting, length - 1))
        kept = min(2, every.shape[along])
        self._words = every.narrow(along, every.shape[along] - kept, kept).clone()
        self._logits = logits.narrow(along, length - 1, 1).clone()

    def means(self) -> list[float]:
        """Return the mean of each class, nan without a surface; no slab may follow."""
        if self._words is not None and self._logits is not None:
            last = _surface(self._words).narrow(1 + self._axis, self._words.shape[1 + self._axis] - 1, 1)
            self._count(self._logits.to(last.device), last)
            self._logits = None
        found: list[float] = (self._sums.found / self._counts.found).tolist()
        return found

    def _count(self, logits: Tensor, surface: Tensor) -> None:
        if not surface.numel():
            return
        kernels = gpu_kernels("slab_triton") if logits.is_cuda else None
        if kernels is not None:
            self._take(*kernels.entropy(logits, surface, self._channels))
            return
        x, y, z = (surface != 0).any(dim=0).nonzero(as_tuple=True)  # few voxels: the rest is left alone
        if not len(x):
            return
        words = surface[:, x, y, z]  # (W, n)
        there = torch.stack([words[c // WORD_BITS] >> c % WORD_BITS & 1 for c in self._channels]) != 0  # (C, n)
        classes, voxels = there.nonzero(as_tuple=True)
        doubts = binary_entropy(logits[classes, x[voxels], y[voxels], z[voxels]].float()).double()
        found = torch.zeros(len(self._channels), dtype=torch.float64, device=doubts.device)
        self._take(found.index_add(0, classes, doubts), torch.bincount(classes, minlength=len(self._channels)))

    def _take(self, sums: Tensor, counts: Tensor) -> None:
        self._sums.add(sums)
        self._counts.add(counts)


def _surface(words: Tensor) -> Tensor:
    """Return the words (W, X, Y, Z) with the bits left whose voxel has one of 6 neighbours without that bit."""
    inner = words.clone()
    for axis in (1, 2, 3):
        length = words.shape[axis] - 1
        inner.narrow(axis, 1, length).bitwise_and_(words.narrow(axis, 0, length))
        inner.narrow(axis, 0, length).bitwise_and_(words.narrow(axis, 1, length))
    return words & ~inner


class Agreement:
    """Mean pairwise DSC of several opinions about the same windows, per class.

    Windows overlap, so a voxel is seen several times; each counts by the Gaussian weight that blending gives it. The
    sums are those of whole scans: a DSC of all windows, not a mean over windows.
    """

    def __init__(self, opinions: int, classes: int, patch: Int3) -> None:
        self._pairs = list(itertools.combinations(range(opinions), 2))
        self._sizes = torch.zeros((opinions, classes), dtype=torch.float64)
        self._shared = torch.zeros((len(self._pairs), classes), dtype=torch.float64)
        self._weight = gaussian_weight(patch).flatten()

    def add(self, masks: Sequence[Tensor]) -> None:
        """Take each opinion's masks (B, C, X, Y, Z) bool of the same windows."""
        device = masks[0].device
        self._weight, self._sizes, self._shared = (t.to(device) for t in (self._weight, self._sizes, self._shared))
        for number, mask in enumerate(masks):
            self._sizes[number] += self._sum(mask)
        for number, (one, other) in enumerate(self._pairs):
            self._shared[number] += self._sum(masks[one] & masks[other])

    def _sum(self, mask: Tensor) -> Tensor:
        return (mask.flatten(2).float() @ self._weight).double().sum(dim=0)

    def means(self) -> list[float | None]:
        """Return the mean of each class over the pairs of which one found anything; None where nobody did."""
        found: list[float | None] = []
        sizes, shared = self._sizes.cpu(), self._shared.cpu()
        for c in range(sizes.shape[1]):
            both = [float(sizes[one, c] + sizes[other, c]) for one, other in self._pairs]
            scores = [2 * float(shared[n, c]) / size for n, size in enumerate(both) if size > 0]
            found.append(sum(scores) / len(scores) if scores else None)
        return found


def variant(windows: Tensor, number: int, hu_span: float) -> Tensor:
    """Return the windows (B, 1, X, Y, Z), HU scaled to 0..1, as test-time variant `number` from 1 on sees them.

    Shifted by a few voxels along each axis, 1 and 3 one way, 2 and 4 the other; 1 and 2 are brighter or darker by
    `VARIANT_HU`, 3 and 4 get noise, the same each time. Nothing is mirrored. hu_span: HU that 0..1 stands for.
    """
    sign = 1 if number % 2 else -1
    moved = torch.roll(windows, (sign * VARIANT_VOXELS,) * 3, dims=(2, 3, 4))
    if number <= 2:
        return (moved + sign * VARIANT_HU / hu_span).clamp(0, 1)
    noise = torch.randn(moved.shape[1:], generator=torch.Generator().manual_seed(number)).to(moved)
    return (moved + noise * (VARIANT_HU / hu_span)).clamp(0, 1)


def unshifted(masks: Tensor, number: int) -> Tensor:
    """Return a variant's masks (B, C, X, Y, Z) where the scan has them; what was rolled over the edge weighs little."""
    sign = 1 if number % 2 else -1
    return torch.roll(masks, (-sign * VARIANT_VOXELS,) * 3, dims=(2, 3, 4))
