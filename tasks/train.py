"""Train, or go on training, the universal model on the lake, as an MLflow run that ends in a registered challenger."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow

from models.checkpoint import read_metadata
from models.plan import SamplingPlan
from models.settings import Preset, as_mapping, load_preset
from models.train import train
from tasks.patches import LakePatchSource, training_source
from tasks.pictures import loss_curves
from tasks.prediction import TRAINED_CLASSES, trained_classes
from tasks.prefect_task import as_task
from tasks.progress import report_progress
from tasks.registry import (
    CHALLENGER,
    TRAINING_CASES,
    ModelVersion,
    fetch_checkpoint,
    register_checkpoint,
    set_alias,
    training_cases,
)
from tasks.settings import Settings
from tasks.splits import SplitChoice, deal_new_cases
from tasks.tracking import log_parameters, tracked_run
from tasks.workspace import open_workspace

LOG_EVERY_STEPS = 10
SAMPLING = "sampling.json"
"""Artifact of a training run: the shares of its patches by class and by data set, as its weights say."""


@dataclass(frozen=True)
class TrainOutcome:
    """The run that trained, the version it registered and how training went."""

    run_id: str
    model: ModelVersion
    steps: int
    final_loss: float
    seconds: float
    patches_per_second: float
    data_wait_share: float
    cases: int
    table_versions: dict[str, int]


def train_model(
    preset: str,
    settings: Settings,
    *,
    datasets: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    start_from: ModelVersion | None = None,
    choice: SplitChoice | None = None,
    flow_run_id: str | None = None,
) -> TrainOutcome:
    """Train on every human label that the split does not hold out and register the result as `challenger`.

    preset: name of a file in `models/presets`, or the path of one. datasets: restrict to these. classes: the loss is
    computed on these only; the network keeps all its classes. start_from: go on from this version's weights.
    choice: default: all folds but the test. Cases that have no fold yet get one first.
    What was read can be read again: the run records the versions of the tables.
    """
    workspace = open_workspace(settings)
    choice = choice or SplitChoice()
    deal_new_cases(workspace)
    versions = workspace.tables.versions()
    source = training_source(workspace, datasets, classes, choice)
    chosen = _fit_to_lake(preset, settings)
    initial = None if start_from is None else fetch_checkpoint(start_from, settings)
    learnt = set(source.annotated_classes()) | set(() if initial is None else trained_classes(read_metadata(initial)))
    cases = [case.case_id for case in source.cases()]
    seen = sorted({*cases, *([] if start_from is None else training_cases(start_from, settings))})
    tags = {
        "flow_run_id": flow_run_id,
        "table_versions": json.dumps(versions),
        "datasets": ",".join(sorted({case_id.split("/")[0] for case_id in cases})),
        "start_from": None if start_from is None else start_from.uri,
    }
    started = time.monotonic()
    with tracked_run(settings, f"train {Path(preset).stem}", kind="train", tags=tags) as run_id:
        log_parameters({"model": as_mapping(chosen.model), "train": as_mapping(chosen.train)})
        mlflow.log_params({"split": choice.split, "held_out": choice.held_out_name})
        mlflow.log_params({f"table_version.{name}": version for name, version in versions.items()})
        mlflow.log_text("\n".join(seen), TRAINING_CASES)
        mlflow.log_dict(_drawn(source, chosen), SAMPLING)
        out_dir = settings.workspace.absolute() / "training" / run_id
        history = LossHistory(chosen.train.steps)
        result = train(
            source,
            chosen.model,
            chosen.train,
            out_dir,
            on_step=history.add,
            start_from=initial,
            cache_dir=settings.workspace.absolute() / "embeddings",
            table_versions=versions,
            extra={
                "mlflow_run_id": run_id,
                TRAINED_CLASSES: ",".join(name for name in chosen.model.classes if name in learnt),
            },
        )
        seconds = time.monotonic() - started
        mlflow.log_metrics(
            {
                "seconds": seconds,
                "patches_per_second": result.patches_per_s,
                "data_wait_share": result.data_wait_share,
            }
        )
        mlflow.log_artifact(str(loss_curves(history.rows, out_dir / "loss.png")))
        model = register_checkpoint(
            result.checkpoint, settings, tags={"train_run_id": run_id, "table_versions": json.dumps(versions)}
        )
        set_alias(model, CHALLENGER, settings)
    return TrainOutcome(
        run_id=run_id,
        model=model,
        steps=result.steps,
        final_loss=result.final_losses["loss"],
        seconds=seconds,
        patches_per_second=result.patches_per_s,
        data_wait_share=result.data_wait_share,
        cases=len(cases),
        table_versions=versions,
    )


def _drawn(source: LakePatchSource, preset: Preset) -> dict[str, dict[str, float]]:
    shares = SamplingPlan(source.cases(), preset.model, preset.train).shares()
    return {"classes": shares.classes, "datasets": shares.datasets}


class LossHistory:
    """The losses of every step, passed on to MLflow every few steps and to the progress bar at each."""

    def __init__(self, steps: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._steps = steps

    def add(self, step: int, losses: dict[str, float]) -> None:
        """Keep the losses of step number `step`, counted from 1."""
        self.rows.append({"step": step, **losses})
        report_progress("train", step, self._steps, f"loss {losses['loss']:.3f}")
        if step % LOG_EVERY_STEPS == 0 or step == self._steps:
            mlflow.log_metrics(losses, step=step)


def _fit_to_lake(preset: str, settings: Settings) -> Preset:
    """Return the preset with what the settings decide: the lake's spacing, the device and its threads.

    A model is trained at the spacing of the lake it reads, whatever its preset was written for.
    """
    train_values: dict[str, Any] = {"device": settings.torch_device()}
    if settings.threads is not None:
        train_values["threads"] = settings.threads
    return load_preset(preset, model={"spacing_mm": settings.spacing_mm}, train=train_values)


train_model_task = as_task(train_model, "train-model", tags=["gpu"])
