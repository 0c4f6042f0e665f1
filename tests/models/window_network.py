"""A network for tests of prediction that takes no time: its logits are worked out by hand from the window it sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datasets_registry.taxonomy import class_info


class WindowNetwork(nn.Module):
    """Logit of class c at a voxel: (value - 0.5) * (c + 1) + mean of the window + how far the voxel lies along X and Z.

    It depends on the window alone, on all of it, and is not the same anywhere in it; air is not background. Free text
    adds the mean of its row. seen: the windows of each pass. memory: windows a pass may have before it is out of
    memory, by device.
    """

    def __init__(self, names: Sequence[str], shift: float = 0.0, memory: dict[str, int] | None = None) -> None:
        super().__init__()
        self.names, self.shift, self.memory = tuple(names), shift, memory or {}
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, classes: Sequence[str] | None = None, *, rows: Tensor | None = None) -> Tensor:
        """Return logits (B, C + R, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        if len(x) > self.memory.get(x.device.type, len(x)):
            raise torch.OutOfMemoryError(f"no room for {len(x)} windows")
        self.seen += list(x[:, 0])
        ramp = torch.linspace(-0.3, 0.3, x.shape[2])[:, None, None] + torch.linspace(-0.1, 0.2, x.shape[4])
        base = x.mean(dim=(2, 3, 4), keepdim=True) + ramp + self.shift  # (B, 1, X, Y, Z)
        logits = [(x - 0.5) * (class_info(name).index % 7 + 1) + base for name in classes or self.names]
        logits += [x - 0.5 + base + row.mean() for row in (() if rows is None else rows)]
        return torch.cat(logits, dim=1)


def whole_volume_logits(
    network: nn.Module, image: Tensor, patch: Sequence[int], starts: Sequence[Sequence[int]], weight: Tensor
) -> Tensor:
    """Return logits (C, X, Y, Z) of `image` (X, Y, Z), scaled and not smaller than a window: the plain form.

    Every window is computed, one at a time; the sums of the whole volume stay in memory, in float64.
    """
    total, weights = None, torch.zeros(image.shape, dtype=torch.float64)
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                box = (slice(x, x + patch[0]), slice(y, y + patch[1]), slice(z, z + patch[2]))
                own = network(image[box][None, None])[0].double()
                total = torch.zeros(len(own), *image.shape, dtype=torch.float64) if total is None else total
                total[(slice(None), *box)] += own * weight
                weights[box] += weight
    assert total is not None
    return total / weights
