"""A moving average of the weights, which is what the final model holds: it swings less than the last step's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.universal import UniversalModel


class MovingAverage:
    """An exponential moving average of a network's parameters; buffers are copied as they are.

    decay: share of the average that stays at each step. It climbs with the number n of updates, as
    min(decay, (1 + n) / (10 + n)): the first, badly trained weights are soon forgotten.
    """

    def __init__(self, network: UniversalModel, decay: float) -> None:
        self._decay = decay
        self._averaged = AveragedModel(network, multi_avg_fn=self._average)
        self._averaged.requires_grad_(False)
        self._updates = 0

    @property
    def network(self) -> UniversalModel:
        """The network with the averaged weights."""
        return cast("UniversalModel", self._averaged.module)

    def update(self, network: nn.Module) -> None:
        """Take in the weights after one more step."""
        self._updates += 1
        self._averaged.update_parameters(network)

    @torch.no_grad()
    def _average(self, averaged: Sequence[Tensor], now: Sequence[Tensor], _: Tensor | int) -> None:
        # counted here: the number that comes along lies on the device, and reading it would wait for the GPU
        n = self._updates - 1
        torch._foreach_lerp_(list(averaged), list(now), 1 - min(self._decay, (1 + n) / (10 + n)))

    def state(self) -> dict[str, Tensor]:
        """Return the average and the number of updates as tensors, for storing."""
        return dict(self._averaged.state_dict())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._averaged.load_state_dict(state)
        self._updates = int(state["n_averaged"])
