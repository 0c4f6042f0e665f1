"""What a pseudo-label run comes to: its figures, how it was made, and what MLflow keeps of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow

from tasks.gpu_use import GpuUse
from tasks.progress import duration
from tasks.pseudo_label_case import OUTCOMES, PseudoLabelOutcome
from tasks.pseudo_label_plan import LabelRun
from tasks.pseudo_label_spec import spec_values
from tasks.tracking import log_parameters
from tasks.two_stages import StageTimes


@dataclass(frozen=True)
class FigureSheet:
    """Figures of a run.

    outcomes: cases by outcome. decisions: labels by decision. network_share: of the time of all, in which the network's
    step was at work; None where nothing was predicted or the cases ran on Dask workers. gpu_share: of the samples that
    the driver took meanwhile, the share in which the GPU was busy; None without a GPU or `nvidia-ml-py`.
    """

    device: str
    outcomes: Mapping[str, int]
    decisions: Mapping[str, int]
    seconds: float
    network_share: float | None
    gpu_share: float | None = None

    def texts(self) -> dict[str, str]:
        """Return the figures in words."""
        found = {f"cases {name}": str(count) for name, count in self.outcomes.items()}
        found |= {f"labels to {name}": str(count) for name, count in self.decisions.items()}
        if self.network_share is not None:
            found["time"] = duration(self.seconds)
            found[f"network at work ({self.device})"] = f"{self.network_share:.0%}"
        if self.gpu_share is not None:
            found["GPU busy"] = f"{self.gpu_share:.0%}"
        return found


def figures_of(
    run: LabelRun, outcomes: Sequence[PseudoLabelOutcome], times: StageTimes, gpu: GpuUse | None = None
) -> FigureSheet:
    """Return the figures of a run that has ended."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    decisions: Counter[str] = Counter()
    for outcome in outcomes:
        decisions.update(dict(outcome.decisions))
    predicted = counts["labelled"] > 0
    return FigureSheet(
        run.settings.torch_device(),
        {name: counts[name] for name in OUTCOMES if counts[name]},
        dict(sorted(decisions.items())),
        times.wall_s,
        times.first_share if predicted else None,
        gpu.share if gpu is not None and predicted else None,
    )


def run_facts(
    run: LabelRun, table_versions: Mapping[str, int], flow_run_id: str | None, mlflow_run_id: str | None
) -> dict[str, str]:
    """Return how the run was made, as the foot of its page."""
    calibration = "none: every label is for review at best; see `ctfactory calibrate`"
    if run.calibration is not None:
        calibration = f"MLflow run {run.calibration.run_id}"
    return {
        "spec": json.dumps(spec_values(run.spec)),
        "weights, SHA-256": ", ".join(run.teacher.digests),
        "masks in the lake": f"labels/{run.base}*",
        "bars": f"accept from {run.bars.accept:g}, reject below {run.bars.reject:g} of expected DSC",
        "calibration": calibration,
        "licence of the model": run.teacher.licence or "not known",
        "tables read, versions": json.dumps(dict(table_versions)),
        "Prefect flow run": flow_run_id or "-",
        "MLflow run": mlflow_run_id or "-",
        "exports": str(run.export_folder),
    }


def log_run(run: LabelRun, table_versions: Mapping[str, int], figures: FigureSheet, page: Path) -> None:
    """Log what the run was asked for and came to in the open MLflow run, and its page."""
    log_parameters(
        {
            **spec_values(run.spec),
            "teacher": run.teacher.title,
            "weights_sha256": ",".join(run.teacher.digests),
            "base": run.base,
            "predicted_classes": ",".join(run.classes),
            "bars_used": {"accept": run.bars.accept, "reject": run.bars.reject},
            "calibration_run_id": None if run.calibration is None else run.calibration.run_id,
            "window_overlap": run.settings.window_overlap,
        }
    )
    mlflow.set_tag("table_versions", json.dumps(dict(table_versions)))
    metrics = {f"cases_{name}": float(count) for name, count in figures.outcomes.items()}
    metrics |= {f"labels_{name}": float(count) for name, count in figures.decisions.items()}
    shares = {"network_share": figures.network_share, "gpu_share": figures.gpu_share}
    metrics |= {name: value for name, value in shares.items() if value is not None}
    mlflow.log_metrics({**metrics, "seconds": figures.seconds})
    mlflow.log_artifact(str(page))
