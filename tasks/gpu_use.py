"""How busy the GPU was while something ran, as its driver says."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

EVERY_S = 0.2


@dataclass
class GpuUse:
    """Samples of a GPU's use, in percent of the driver's last sampling period in which a kernel ran."""

    samples: int = 0
    percent: float = 0.0

    @property
    def share(self) -> float | None:
        """The mean, 0 to 1; None without a sample."""
        return self.percent / self.samples / 100 if self.samples else None


@contextmanager
def watched_gpu(device: str) -> Iterator[GpuUse]:
    """Sample the use of the GPU that PyTorch calls `device` while the block runs.

    Nothing is sampled on a CPU, nor without `nvidia-ml-py`, which PyTorch asks the driver by.
    """
    use = GpuUse()
    if torch.device(device).type != "cuda" or importlib.util.find_spec("pynvml") is None:
        yield use
        return
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(EVERY_S):
            use.percent += torch.cuda.utilization(torch.device(device))
            use.samples += 1

    watcher = threading.Thread(target=look, name="gpu-use", daemon=True)
    watcher.start()
    try:
        yield use
    finally:
        ended.set()
        watcher.join()
