"""What half precision changes in the masks, worked out on a CPU: the steps a GPU takes, in its number format.

`python -m benchmarks.half_masks` trains Swin UNETR on drawn patients, predicts another one in fp32 and by the copy in
bfloat16 that a GPU runs, and prints the DSC between both masks. Half an hour on two cores. `python -m benchmarks.gpu`
does the same on a GPU, whose kernels add in another order.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu_data import Scale, one_more
from benchmarks.gpu_parts import OVERLAP, dice_lines, train_briefly
from imaging.bits import get_channel
from models.checkpoint import load_model
from models.half_ops import in_two
from models.infer import Predictor
from models.infer_network import halved
from models.infer_scan import ArrayScan
from models.universal import UniversalModel

SCALE = Scale("cpu", "swinunetr", patch=64, scan=192, cases=4, batch=2, windows=2, steps=150, readers=1, spacing_mm=2.4)


class _Halved(nn.Module):
    """The copy in half precision, run where `Predictor` would run the model itself."""

    def __init__(self, model: UniversalModel) -> None:
        super().__init__()
        self.twin = halved(model, torch.bfloat16)

    def forward(self, x: Tensor, classes: Sequence[str] | None = None, *, rows: Tensor | None = None) -> Tensor:
        logits: Tensor = self.twin(in_two(x, torch.bfloat16), classes, rows=rows)
        return logits


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it; the arguments are those of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half_masks", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=SCALE.steps, help="of the training")
    scale = Scale(**{**vars(SCALE), "steps": parser.parse_args(arguments or []).steps})
    with tempfile.TemporaryDirectory() as folder:
        model, metadata = load_model(train_briefly(scale, Path(folder)), "cpu")
    settings, scan = metadata.model, ArrayScan(one_more(scale))
    masks = []
    twin: Any = _Halved(model).eval()
    for name, network in (("fp32", model), ("bf16", twin)):
        began = time.perf_counter()
        predictor = Predictor([network], settings, overlap=OVERLAP, batch=scale.windows)
        bits = predictor.predict(scan).bits
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        masks.append(np.stack([get_channel(bits, channel) for channel in settings.channels]))
    for line in dice_lines(masks[0], masks[1], settings.classes):
        print(f"bf16 on a CPU: {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
