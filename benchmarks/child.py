"""Peak memory of one run of something, in a fresh process, so that nothing else's memory counts."""

from __future__ import annotations

import subprocess
import sys

from imaging.memory import peak_bytes


def peak_gb(module: str, *arguments: str) -> tuple[float, float]:
    """Run `python -m module arguments` and return the GB it reports: in use before, and at its peak; see `report`."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=True)
    before, peak = done.stdout.split()[-2:]
    return float(before), float(peak)


def used_gb() -> float:
    """Return the largest resident size this process had so far, in GB."""
    return peak_bytes() / 1e9


def report(before: float) -> None:
    """Print what `peak_gb` reads; before: `used_gb` at the time when the run began."""
    print(before, used_gb())
