"""`head`: the text-driven head on 96^3 voxels and 32 classes against grouped convolutions, same logits;
its memory beyond the inputs. `one class`: one class asked for against 32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.child import peak_gb, report, used_gb
from benchmarks.reference import CLASSES, SIZES, WIDTH, grouped_convolutions
from benchmarks.side_by_side import record, run_in_turn
from models.head import head_logits

PATCH = 96
AGREE = 1e-5


@torch.inference_mode()
def main() -> None:
    """Record time and extra memory; ValueError where the logits differ."""
    torch.set_num_threads(2)
    features, parameters = _inputs()
    volume = features.view(1, WIDTH, PATCH, PATCH, PATCH)

    def theirs() -> Tensor:
        return grouped_convolutions(volume, parameters[0])

    worst = float((head_logits(features, parameters).view(1, CLASSES, PATCH, PATCH, PATCH) - theirs()).abs().max())
    if worst > AGREE:
        raise ValueError(f"head: logits differ by up to {worst}, expected at most {AGREE}")
    run_in_turn("head", lambda: head_logits(features, parameters), theirs, repeats=3)
    one = parameters[:, :1].contiguous()
    run_in_turn("one class", lambda: head_logits(features, one), lambda: head_logits(features, parameters))
    found = {}
    for form in ("ours", "reference"):
        before, peak = peak_gb("benchmarks.head", form)
        found[form] = 1000 * (peak - before)
    record("head memory", found["ours"], found["reference"], "MB")


def _inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, WIDTH, PATCH**3, generator=generator)
    return features, torch.randn(1, CLASSES, sum(SIZES), generator=generator) * 0.3


if __name__ == "__main__":
    import sys

    torch.set_num_threads(2)
    voxels, weights = _inputs()
    with torch.inference_mode():
        began = used_gb()
        if sys.argv[1] == "ours":
            head_logits(voxels, weights)
        else:
            grouped_convolutions(voxels.view(1, WIDTH, PATCH, PATCH, PATCH), weights[0])
    report(began)
