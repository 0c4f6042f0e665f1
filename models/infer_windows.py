"""Where the windows of a scan lie, in slabs along one axis: arithmetic on shapes, without any voxel."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from models.plan import Int3

Box = tuple[slice, slice, slice]


def window_starts(length: int, patch: int, overlap: float) -> list[int]:
    """Return where windows of `patch` begin along an axis of `length` voxels: evenly spread, first 0, last at the end.

    Neighbours overlap by at least `overlap` of a window. A length of at most `patch` has one window at 0.
    """
    if length <= patch:
        return [0]
    stride = max(1, int(patch * (1 - overlap)))
    count = -(-(length - patch) // stride) + 1
    return [round(index * (length - patch) / (count - 1)) for index in range(count)]


def gaussian_weight(patch: Int3, sigma_share: float = 0.125, device: torch.device | str = "cpu") -> Tensor:
    """Return (X, Y, Z) weights, 1 in the middle and never below 1e-3: a Gaussian of sigma = `sigma_share` * size."""
    axes = []
    for size in patch:
        distance = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        axes.append(torch.exp(-0.5 * (distance / (sigma_share * size)) ** 2).to(device))
    x, y, z = axes
    return (x[:, None, None] * y[None, :, None] * z[None, None, :]).clamp(min=1e-3)


@dataclass(frozen=True)
class WindowGrid:
    """The windows of one scan, slab by slab along the axis on which a slab is the smallest share of the scan.

    A slab is as thick as a window and as wide as the scan. scan_shape: voxels X, Y, Z of the scan. patch: of a window.
    """

    scan_shape: Int3
    patch: Int3
    overlap: float

    @property
    def shape(self) -> Int3:
        """Voxels of the scan with air around it, up to the window's size where it is smaller."""
        x, y, z = (max(n, p) for n, p in zip(self.scan_shape, self.patch, strict=True))
        return (x, y, z)

    @property
    def before(self) -> Int3:
        """Voxels of air before the scan, along X, Y, Z; half of what is added."""
        x, y, z = ((m - n) // 2 for m, n in zip(self.shape, self.scan_shape, strict=True))
        return (x, y, z)

    @property
    def axis(self) -> int:
        """The axis slabs follow one another on; Z, along which scans are stored, where axes are equal."""
        return max(range(3), key=lambda axis: (self.shape[axis] / self.patch[axis], axis))

    @property
    def slab_shape(self) -> Int3:
        """Voxels X, Y, Z of a slab."""
        x, y, z = (self.patch[a] if a == self.axis else self.shape[a] for a in range(3))
        return (x, y, z)

    @property
    def slab_starts(self) -> list[int]:
        """First plane of each slab along `axis`, air included."""
        return window_starts(self.shape[self.axis], self.patch[self.axis], self.overlap)

    @property
    def windows(self) -> tuple[Box, ...]:
        """The windows of a slab, within it; they are the same in every slab."""
        starts = [
            [0] if axis == self.axis else window_starts(self.shape[axis], self.patch[axis], self.overlap)
            for axis in range(3)
        ]
        return tuple(
            (slice(x, x + self.patch[0]), slice(y, y + self.patch[1]), slice(z, z + self.patch[2]))
            for x, y, z in itertools.product(*starts)
        )

    def finished(self, number: int) -> int:
        """Return how many planes of slab `number` no later slab touches."""
        starts = self.slab_starts
        return starts[number + 1] - starts[number] if number + 1 < len(starts) else self.patch[self.axis]

    def kept(self, number: int) -> tuple[Box, Box] | None:
        """Return the finished part of a slab that lies in the scan: as a box of the slab, and of the scan.

        None where it is air around a small scan only.
        """
        inside, within = [], []
        for axis in range(3):
            start = self.slab_starts[number] if axis == self.axis else 0
            stop = start + (self.finished(number) if axis == self.axis else self.shape[axis])
            first = max(start, self.before[axis])
            last = min(stop, self.before[axis] + self.scan_shape[axis])
            if first >= last:
                return None
            inside.append(slice(first - start, last - start))
            within.append(slice(first - self.before[axis], last - self.before[axis]))
        return (inside[0], inside[1], inside[2]), (within[0], within[1], within[2])
