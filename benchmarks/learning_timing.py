"""How long a scan takes: one network for all classes against one network for each set, in turn, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.learning_data import Study, StudyScan
from benchmarks.learning_jobs import COLLECTION, Job, device_name, write_row
from benchmarks.learning_pool import Plan
from models.checkpoint import ModelMetadata, load_model
from models.infer import predict_bits
from models.train import FINAL
from models.universal import UniversalModel

SCANS, REPEATS = 4, 3
TIMES = "inference-{seed}"
Loaded = tuple[UniversalModel, ModelMetadata]


def time_inference(plan: Plan, study: Study, seeds: Sequence[int], device: str) -> None:
    """Write one row for each seed whose networks are there: seconds a scan of the one and of all the others together.

    Runs after the jobs, when nothing else is at work. A row that is there is kept.
    """
    for seed in seeds:
        name = TIMES.format(seed=seed)
        paths = [plan.work / Job(arm, seed).name / FINAL for arm in ("partial", *(f"only {s}" for s in COLLECTION))]
        if (plan.out / f"{name}.json").is_file() or not all(path.is_file() for path in paths):
            continue
        universal, *single = [load_model(path, device) for path in paths]
        scans = study.held_out(COLLECTION)[:: max(1, len(study.held_out(COLLECTION)) // SCANS)][:SCANS]
        one, many = _in_turn(universal, single, scans, device)
        row: dict[str, Any] = {"job": name, "seed": seed, "device": device_name(device), "one": one, "many": many}
        write_row(plan.out, row)
        print(f"seed {seed}: one network {one:.3f} s a scan, {len(single)} networks {many:.3f} s", flush=True)


def _in_turn(
    universal: Loaded, single: Sequence[Loaded], scans: Sequence[StudyScan], device: str
) -> tuple[float, float]:
    """Return median seconds a scan of the one network and of all others together, taking turns after a warm-up."""
    taken: dict[str, list[float]] = {"one": [], "many": []}
    for repeat in range(REPEATS + 1):
        for scan in scans:
            for who, networks in (("one", [universal]), ("many", list(single))):
                seconds = _seconds(networks, scan, device)
                if repeat:
                    taken[who].append(seconds)
    return round(statistics.median(taken["one"]), 5), round(statistics.median(taken["many"]), 5)


def _seconds(networks: Sequence[Loaded], scan: StudyScan, device: str) -> float:
    began = time.perf_counter()
    for network in networks:
        predict_bits(*network, scan.image, device=device)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
