"""What a prediction costs: parameters, FLOPs, seconds and memory a scan, against one model for each data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.checkpoint import load_model, members
from tasks.evidence import EVALUATE
from tasks.prediction import trained_classes
from tasks.settings import Settings
from tasks.tracking import find_runs

SAME_CASES = "case_ids_sha256"
"""Tag of an evaluation's run: the digest of its cases' ids, so that runs over the same cases are found."""


@dataclass(frozen=True)
class Efficiency:
    """Medians over the scans of an evaluation, on the device that predicted them.

    gflops: of one window through every member of the model, a multiplication and an addition counted as two.
    data_sets: sets the model was trained on: as many single models, and passes over a scan, would replace it.
    """

    parameters: int
    gflops: float
    windows: float
    seconds: float
    peak_gb: float
    device: str
    data_sets: int

    @property
    def tflops_per_scan(self) -> float:
        """FLOPs of the windows that the network saw, in 10^12."""
        return self.gflops * self.windows / 1000.0

    def metrics(self) -> dict[str, float]:
        """Return the figures under their names in MLflow."""
        return {
            "efficiency/parameters": float(self.parameters),
            "efficiency/gflops_per_window": self.gflops,
            "efficiency/tflops_per_scan": self.tflops_per_scan,
            "efficiency/seconds_per_scan": self.seconds,
            "efficiency/peak_gb": self.peak_gb,
        }

    def table(self) -> pd.DataFrame:
        """Return this model beside as many single models as it was trained on sets.

        Their cost is that of this model's backbone and windows each: computed, not measured.
        """
        rows = [
            {
                "what": name,
                "parameters": self.parameters * times,
                "TFLOP a scan": self.tflops_per_scan * times,
                "seconds a scan": self.seconds * times,
                "peak GB": self.peak_gb,
            }
            for name, times in (
                ("this model, one pass", 1),
                (f"{self.data_sets} models, one for each data set (computed)", self.data_sets),
            )
        ]
        return pd.DataFrame(rows)


def measure_efficiency(checkpoint: Path, costs: pd.DataFrame, training_cases: Sequence[str]) -> Efficiency:
    """Return what predictions by `checkpoint` cost; costs: `seconds`, `windows`, `peak_gb` and `device` of each."""
    parameters, gflops = _network_cost(tuple(members(checkpoint)))
    return Efficiency(
        parameters,
        gflops,
        float(costs["windows"].median()),
        float(costs["seconds"].median()),
        float(costs["peak_gb"].median()),
        ", ".join(sorted(set(costs["device"]))),
        len({case_id.partition("/")[0] for case_id in training_cases}),
    )


@lru_cache(maxsize=4)
def _network_cost(checkpoints: tuple[Path, ...]) -> tuple[int, float]:
    """Return parameters and GFLOPs a window of all members together; shapes alone are computed, on no device."""
    parameters, flops = 0, 0
    for checkpoint in checkpoints:
        model, metadata = load_model(checkpoint)
        parameters += sum(weight.numel() for weight in model.parameters())
        patch = metadata.model.patch
        backbone = model.backbone.to("meta")
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            backbone(torch.zeros((1, 1, *patch), device="meta"))
        classes = len(trained_classes(metadata))
        # The head: its features to 8 channels, then 8-8-8-1 for each class, voxel by voxel (arXiv 2301.00785, 3.2).
        head = 2 * int(np.prod(patch)) * (backbone.last_channels * 8 + classes * (8 * 8 + 8 * 8 + 8))
        flops += counter.get_total_flops() + head
    return parameters, flops / 1e9


def evaluations_of_same_cases(digest: str, settings: Settings) -> pd.DataFrame:
    """Return model, DSC over organs and TFLOP a scan of the newest finished evaluation of each version on these cases.

    Models of one data set that were evaluated so stand beside the universal one in the figure of DSC against compute.
    """
    runs = [run for run in find_runs(settings, EVALUATE, tags={SAME_CASES: digest}) if run.info.status == "FINISHED"]
    rows = [
        {
            "model": run.data.tags.get("model", run.info.run_id),
            "mean_organ_dsc": run.data.metrics.get("mean_organ_dsc"),
            "tflops_per_scan": run.data.metrics.get("efficiency/tflops_per_scan"),
        }
        for run in runs
    ]
    table = pd.DataFrame(rows, columns=["model", "mean_organ_dsc", "tflops_per_scan"])
    return table.drop_duplicates("model").dropna().reset_index(drop=True)
