"""How far the prediction of a scan is, and what it takes: measured from its first windows on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from imaging.memory import peak_bytes
from models.infer_network import Network


@dataclass(frozen=True)
class PredictionProgress:
    """Windows done, of those the network has to see; all: those of the scan, air among them.

    seconds_left: by the rate so far. peak_gb: the most memory (10^9 bytes) in use so far, on a GPU that of PyTorch
    there, else that of the process. Sums and masks have their room from the start, so the first windows tell it.
    """

    done: int
    windows: int
    all: int
    seconds: float
    seconds_left: float
    peak_gb: float
    device: str
    batch: int
    precision: str

    def estimate(self) -> str:
        """Return what the scan takes, in words."""
        air = f" ({self.all - self.windows} more are air)" if self.all > self.windows else ""
        return (
            f"{self.windows} windows{air}, {self.batch} a pass, {self.precision} on {self.device}: about "
            f"{_seconds(self.seconds + self.seconds_left)}, {self.peak_gb:.1f} GB"
        )

    def left(self) -> str:
        """Return time left and memory in a few words."""
        return f"windows on {self.device}, {_seconds(self.seconds_left)} left, {self.peak_gb:.1f} GB"


Reporter = Callable[[PredictionProgress], None]


class Meter:
    """Counts windows and tells `report`, first after the first pass, then at most twice a second, and at the end."""

    EVERY_S = 0.5

    def __init__(self, network: Network, windows: int, all_windows: int, report: Reporter | None) -> None:
        self._network, self._windows, self._all, self._report = network, windows, all_windows, report
        self._done = 0
        self._started = time.perf_counter()
        self._told: float | None = None
        if network.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(network.device)

    def count(self, windows: int) -> None:
        """Take note of windows that are done."""
        self._done += windows
        if self._report is None or self._done < min(self._network.batch, self._windows):
            return
        if self._told is None or time.perf_counter() - self._told >= self.EVERY_S or self._done == self._windows:
            self._tell(self._report)

    def _tell(self, report: Reporter) -> None:
        if self._network.device.type == "cuda":
            torch.cuda.synchronize(self._network.device)  # passes are queued; what is not done yet is no progress
        self._told = time.perf_counter()
        seconds = self._told - self._started
        report(
            PredictionProgress(
                self._done,
                self._windows,
                self._all,
                seconds,
                seconds / self._done * (self._windows - self._done),
                self._peak_gb(),
                str(self._network.device),
                self._network.batch,
                self._network.precision,
            )
        )

    def _peak_gb(self) -> float:
        if self._network.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._network.device) / 1e9
        return peak_bytes() / 1e9


def _seconds(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
