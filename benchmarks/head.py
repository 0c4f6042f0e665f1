"""`head`: the text-driven head on 96^3 voxels and 32 classes against grouped convolutions, same logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.side_by_side import run_in_turn
from models.head import head_logits

CLASSES, WIDTH, PATCH = 32, 8, 96
SIZES = [WIDTH * WIDTH, WIDTH * WIDTH, WIDTH, WIDTH, WIDTH, 1]


def grouped_convolutions(features: Tensor, parameters: Tensor) -> Tensor:
    """The published form: the feature map once per class, then three 1x1x1 convolutions with one group a class.

    features: (1, 8, X, Y, Z). parameters: (1, C, 153): weights 8x8, 8x8, 1x8, then biases 8, 8, 1. Returns
    (1, C, X, Y, Z).
    """
    w1, w2, w3, b1, b2, b3 = torch.split(parameters[0], SIZES, dim=1)
    copies = features.repeat(1, CLASSES, 1, 1, 1)  # (1, C * 8, X, Y, Z)
    first = F.conv3d(copies, w1.reshape(-1, WIDTH, 1, 1, 1), b1.flatten(), groups=CLASSES).relu()
    second = F.conv3d(first, w2.reshape(-1, WIDTH, 1, 1, 1), b2.flatten(), groups=CLASSES).relu()
    return F.conv3d(second, w3.reshape(-1, WIDTH, 1, 1, 1), b3.flatten(), groups=CLASSES)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, WIDTH, PATCH, PATCH, PATCH, generator=generator)
    parameters = torch.randn(1, CLASSES, sum(SIZES), generator=generator) * 0.3

    def ours() -> Tensor:
        return head_logits(features.flatten(2), parameters).reshape(1, CLASSES, PATCH, PATCH, PATCH)

    worst = float((ours() - grouped_convolutions(features, parameters)).abs().max())
    if worst > 1e-4:
        raise ValueError(f"head: logits differ by up to {worst}, expected at most 1e-4")
    run_in_turn("head", ours, lambda: grouped_convolutions(features, parameters), repeats=3)
