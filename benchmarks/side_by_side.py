"""Run ours and the peer in turn, in one process, and keep the medians and their ratio."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.jsonl")


@dataclass(frozen=True)
class Result:
    """One figure; ratio = peer / ours, so larger is better for times, sizes and memory alike."""

    name: str
    ours: float
    peer: float
    ratio: float
    unit: str
    commit: str


def run_in_turn(
    name: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    repeats: int = 5,
    unit: str = "s",
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Time both alternately, `repeats` times after one warm-up each, and record the medians in seconds.

    Taking turns lets a busy machine slow both alike, which the ratio then does not show. clock: `time.thread_time` for
    the CPU time of the calling thread alone, where the machine is too busy for that.
    """
    ours()
    peer()
    taken: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        for who, function in (("ours", ours), ("peer", peer)):
            started = clock()
            function()
            taken[who].append(clock() - started)
    return record(name, statistics.median(taken["ours"]), statistics.median(taken["peer"]), unit)


def record(name: str, ours: float, peer: float, unit: str) -> Result:
    """Print one comparison and append it to `results.jsonl`."""
    result = Result(name, round(ours, 6), round(peer, 6), round(peer / ours, 3), unit, commit())
    print(f"{name:<12} ours {ours:10.4f} {unit}   peer {peer:10.4f} {unit}   ratio {peer / ours:6.2f}")
    with RESULTS.open("a") as stream:
        stream.write(json.dumps(asdict(result)) + "\n")
    return result


def commit() -> str:
    """Return the short id of the commit that is measured."""
    root = Path(__file__).parent.parent
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=root, check=False
    )
    return found.stdout.strip() or "unknown"
