"""What half precision changes in the masks, worked out on a CPU: the steps a GPU takes, in its number format.

`python -m benchmarks.half_masks` trains Swin UNETR on drawn patients, or takes `--checkpoint FILE`, and predicts
another one: in fp32, by the copies in bfloat16 and float16 that a GPU runs, with only the scan or only the weights
rounded, and by PyTorch's autocast. It prints the DSC of each to the masks in fp32, and of those to the truth. An
hour on two cores. `python -m benchmarks.gpu` compares them on a GPU, whose kernels add in another order.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from benchmarks.gpu_data import Scale, one_more
from benchmarks.gpu_parts import OVERLAP, dice_lines, train_briefly
from imaging.bits import get_channel
from models.checkpoint import load_model
from models.half_ops import in_two
from models.infer import Predictor
from models.infer_network import halved
from models.infer_scan import ArrayScan
from models.universal import UniversalModel

LARGE_ORGANS = ("spleen", "right_kidney", "left_kidney", "liver", "stomach", "aorta", "postcava")
"""What a network can learn on a CPU within the hour; grids are coarse for that, too, so that patches see much."""
SCALE = Scale(
    "cpu", "swinunetr", patch=64, scan=128, cases=4, batch=1, windows=2, steps=560, readers=0, spacing_mm=3.0,
    classes=LARGE_ORGANS,
)  # fmt: skip

Run = Callable[[Tensor, Sequence[str] | None], Tensor]
HALF = torch.bfloat16


class _Form(nn.Module):
    """A way of making logits (B, C, X, Y, Z), run where `Predictor` would run the model itself."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor, classes: Sequence[str] | None = None, **_: object) -> Tensor:
        return self.run(x, classes)


class _WideConvolutions(TorchFunctionMode):
    """Convolves float16 maps in float32 and rounds the result, as a GPU does; PyTorch's CPU code takes 2,000 times as
    long in float16."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.conv3d and args[0].dtype == torch.float16:
            convolve: Any = func
            wide = (value.float() if isinstance(value, Tensor) else value for value in args)
            found: Tensor = convolve(*wide, **(kwargs or {}))
            return found.half()
        return func(*args, **(kwargs or {}))


def _forms(model: UniversalModel) -> dict[str, Run]:
    """Return what is compared, by name; the first is what the others are compared with."""
    twin, rounded, finer = halved(model, HALF), copy.deepcopy(model), halved(model, torch.float16)
    for weight in rounded.backbone.parameters():
        weight.data = weight.data.to(HALF).float()

    def autocast(x: Tensor, classes: Sequence[str] | None) -> Tensor:
        with torch.autocast("cpu", dtype=HALF):
            logits: Tensor = model(x, classes)
        return logits.float()

    def fp16(x: Tensor, classes: Sequence[str] | None) -> Tensor:
        with _WideConvolutions():
            logits: Tensor = finer(in_two(x, torch.float16), classes)
        return logits

    return {
        "fp32": model,
        "the scan alone rounded": lambda x, classes: model(x.to(HALF).float(), classes),
        "weights alone rounded": rounded,
        "all in bf16, the scan rounded too": lambda x, classes: twin(x.to(HALF), classes),
        "all in bf16, the scan in two numbers": lambda x, classes: twin(in_two(x, HALF), classes),
        "all in fp16": fp16,
        "autocast": autocast,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it; the arguments are those of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half_masks", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=SCALE.steps, help="of the training")
    parser.add_argument("--checkpoint", type=Path, help="a network to compare, in place of training one")
    chosen = parser.parse_args(arguments or [])
    if chosen.checkpoint is None:
        with tempfile.TemporaryDirectory() as folder:
            scale = Scale(**{**vars(SCALE), "steps": chosen.steps})
            model, metadata = load_model(train_briefly(scale, Path(folder)), "cpu")
    else:
        model, metadata = load_model(chosen.checkpoint, "cpu")
    settings = metadata.model
    volume, truth = one_more(SCALE)
    scan = ArrayScan(volume)
    expected: NDArray[np.bool_] | None = None
    for name, run in _forms(model.eval()).items():
        began = time.perf_counter()
        form: Any = _Form(run)
        bits = Predictor([form], settings, overlap=OVERLAP, batch=SCALE.windows).predict(scan).bits
        masks = np.stack([get_channel(bits, channel) for channel in settings.channels])
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        if expected is None:
            expected = masks
            drawn = np.stack([get_channel(truth, channel) for channel in settings.channels])
            print("\n".join(f"{name}, to the truth: {line}" for line in dice_lines(masks, drawn, settings.classes)))
        else:
            print("\n".join(f"{name}: {line}" for line in dice_lines(masks, expected, settings.classes)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
