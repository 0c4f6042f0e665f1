"""`train step`: `unet`, 32 classes, batch 2, patch 64^3: forward, masked loss, backward, AdamW.

The peer is the published form. Both have the same loss. The memory is a fresh process's peak.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from benchmarks.child import peak_gb, report, used_gb
from benchmarks.reference import CLASSES, ReferenceModel
from benchmarks.side_by_side import record, run_in_turn
from datasets_registry.taxonomy import class_names
from models.backbones import build_backbone
from models.loss import masked_loss
from models.universal import UniversalModel

PATCH, BATCH = 64, 2


def main() -> None:
    """Record time and memory of a step."""
    torch.set_num_threads(2)
    run_in_turn("train step", _step("ours"), _step("reference"), repeats=3)
    found = {form: peak_gb("benchmarks.train_step", form)[1] for form in ("ours", "reference")}
    record("train step memory", found["ours"], found["reference"], "GB")


def _step(form: str) -> Callable[[], None]:
    """Return one optimiser step of `ours` or of the `reference`."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    ours = UniversalModel(build_backbone("unet"), torch.randn(CLASSES, 512), class_names())
    model = ours if form == "ours" else ReferenceModel("unet")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x = torch.rand(BATCH, 1, PATCH, PATCH, PATCH, generator=draw)
    target = torch.rand(BATCH, CLASSES, PATCH, PATCH, PATCH, generator=draw) > 0.9
    annotated = torch.ones(BATCH, CLASSES, dtype=torch.bool)

    def step() -> None:
        loss, _ = masked_loss(model(x), target, annotated)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    torch.set_num_threads(2)
    run = _step(sys.argv[1])
    began = used_gb()
    run()
    report(began)
