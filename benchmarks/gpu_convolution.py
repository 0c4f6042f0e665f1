"""`gpu convolution`: the 3x3x3 convolutions that half of a Swin UNETR window goes into on a GPU, three ways.

48 channels into 48 and 96 into 48, 9 windows of 96^3, bf16, channels last: cuDNN as it is called, cuDNN on maps widened
to a multiple of 64 channels, and an implicit matrix product in Triton. It decides whether a kernel of our own is worth
having (docs/design/0030); `python -m benchmarks.gpu_convolution` prints all, `no GPU` where there is none.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

WINDOWS, PATCH = 9, 96
LAYERS = ((48, 48), (96, 48))
"""Channels in and out."""
CONFIGURATIONS = (
    *itertools.product((128, 256), (8,), (3,), (64, 128)),
    (128, 4, 3, 128),
    (128, 4, 4, 64),
    (256, 8, 4, 64),
    (256, 8, 2, 128),
    (128, 4, 4, 16),
)
"""Voxels a program, warps, stages of its pipeline, and numbers that a product takes; each takes seconds to build."""


def main() -> None:
    """Print the time of each way."""
    if not torch.cuda.is_available():
        print("no GPU")
        return
    from benchmarks.gpu_convolution_triton import convolve, packed  # Triton is where GPUs are

    for inputs, outputs in LAYERS:
        x, weight = _made(inputs, outputs)
        flop = 2 * 27 * inputs * outputs * WINDOWS * PATCH**3
        wide, wide_weight = (_widened(each, inputs) for each in (x, weight))
        wide_weight = functional.pad(wide_weight, [0] * 8 + [0, -outputs % 64])
        ways: dict[str, Callable[[], Tensor]] = {
            "cuDNN": partial(functional.conv3d, x, weight, padding=1),
            "cuDNN, widened": partial(functional.conv3d, wide, wide_weight, padding=1),
        }
        expected = ways["cuDNN"]()
        pack = packed(weight)
        for chosen in CONFIGURATIONS:
            name = "Triton, {} voxels, {} warps, {} stages, by {}".format(*chosen)
            ways[name] = partial(convolve, x, pack, outputs, *chosen)
        for name, run in ways.items():
            try:
                difference = float((run()[:, :outputs].float() - expected.float()).abs().max())
                ms = _milliseconds(run)
            except Exception as error:  # a configuration that does not fit the card says so, the others go on
                print(f"{inputs} into {outputs}: {name:<52} {type(error).__name__}: {str(error)[:80]}")
                continue
            rate = f"{flop / ms / 1e9:4.0f} TFLOP/s"
            print(f"{inputs} into {outputs}: {name:<52} {ms:6.2f} ms, {rate}, off by {difference:.4f} at most")


def _made(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(WINDOWS, inputs, *[PATCH] * 3, device="cuda", dtype=torch.bfloat16, generator=draw)
    weight = torch.randn(outputs, inputs, 3, 3, 3, device="cuda", dtype=torch.bfloat16, generator=draw) / inputs
    return _last(x), _last(weight)


def _widened(x: Tensor, channels: int) -> Tensor:
    return _last(functional.pad(x, [0] * 6 + [0, -channels % 64]))


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _milliseconds(run: Callable[[], Tensor]) -> float:
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[1:])


if __name__ == "__main__":
    main()
