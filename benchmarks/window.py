"""`window unet`, `window swinunetr`: one 96^3 window, 32 classes, fp32, end to end, against the published form.

The memory is a fresh process's peak, PyTorch and weights included.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from benchmarks.child import peak_gb, report, used_gb
from benchmarks.reference import CLASSES, ReferenceModel
from benchmarks.side_by_side import record, run_in_turn
from datasets_registry.taxonomy import class_names
from models.backbones import build_backbone
from models.universal import UniversalModel

PATCH = 96
BACKBONES = {"unet": "unet", "swinunetr": "swinunetr_v09"}
AGREE = 1e-4


def main() -> None:
    """Record time and memory of both backbones; ValueError where the logits differ."""
    torch.set_num_threads(2)
    for title, backbone in BACKBONES.items():
        _compare(title, backbone)
        found = {form: peak_gb("benchmarks.window", backbone, form)[1] for form in ("ours", "reference")}
        record(f"window {title} memory", found["ours"], found["reference"], "GB")


def _compare(title: str, backbone: str) -> None:
    ours, theirs, x = _model(backbone, "ours"), _model(backbone, "reference"), _window()
    theirs.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        worst = float((ours(x) - theirs(x)).abs().max())
        if worst > AGREE:
            raise ValueError(f"window {title}: logits differ by up to {worst}, expected at most {AGREE}")
        run_in_turn(f"window {title}", lambda: ours(x), lambda: theirs(x), repeats=3)


def _model(backbone: str, form: str) -> nn.Module:
    torch.manual_seed(0)
    if form == "reference":
        return ReferenceModel(backbone).eval()
    return UniversalModel(build_backbone(backbone), torch.randn(CLASSES, 512), class_names()).eval()


def _window() -> Tensor:
    return torch.rand(1, 1, PATCH, PATCH, PATCH, generator=torch.Generator().manual_seed(1))


if __name__ == "__main__":
    torch.set_num_threads(2)
    network, window = _model(*sys.argv[1:3]), _window()
    with torch.inference_mode():
        began = used_gb()
        network(window)
    report(began)
