"""Train, or go on training, the universal model on the lake, as an MLflow run that ends in a registered challenger."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mlflow

from models.checkpoint import read_metadata
from models.extend import settings_from
from models.licence import LICENCE
from models.plan import SamplingPlan
from models.settings import Preset, as_mapping
from models.train import LAST, train
from tasks.metric_queue import MetricQueue, MetricRow
from tasks.patches import LakePatchSource, training_source
from tasks.pending import Registration, register
from tasks.pictures import loss_curves
from tasks.prediction import TRAINED_CLASSES, trained_classes
from tasks.prefect_task import as_task
from tasks.progress import duration, report_progress
from tasks.pseudo_choice import PSEUDO_LABELS, PseudoChoice, licence_entries, makers
from tasks.ranks import other_ranks
from tasks.registry import (
    CHALLENGER,
    TRAINING_CASES,
    ModelVersion,
    fetch_checkpoint,
    model_version,
    training_cases,
)
from tasks.settings import Settings
from tasks.splits import SplitChoice, deal_new_cases
from tasks.tracking import log_parameters, mlflow_client, tracked_run
from tasks.train_request import REQUEST, TrainRequest, new_request, only_process_of, stored_request
from tasks.training_data import log_training_data
from tasks.workspace import open_workspace

LOG_EVERY_STEPS = 10
SAMPLING = "sampling.json"
"""Artifact of a training run: the shares of its patches by class and by data set, as its weights say."""
KIND = "train"
FOLD_TAG = "fold"
"""Tag of a training run that is a part of a cross-validation."""


@dataclass(frozen=True)
class TrainOutcome:
    """The run that trained, the version it registered and how training went. resumed_from: the step it began at."""

    run_id: str
    model: ModelVersion
    steps: int
    final_loss: float
    seconds: float
    patches_per_second: float
    data_wait_share: float
    cases: int
    table_versions: dict[str, int]
    resumed_from: int = 0


def train_model(
    preset: str,
    settings: Settings,
    *,
    datasets: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    start_from: ModelVersion | None = None,
    add_classes: Sequence[str] | None = None,
    transfer_to: Sequence[str] | None = None,
    text_encoder: str | None = None,
    choice: SplitChoice | None = None,
    pseudo: PseudoChoice | None = None,
    flow_run_id: str | None = None,
) -> TrainOutcome:
    """Train on every human label that the split does not hold out and register the result as `challenger`.

    preset: name of a file in `models/presets`, or the path of one. datasets: restrict to these. classes: the loss is
    computed on these only; the network keeps all its classes. start_from: go on from this version's weights, with its
    network's settings. add_classes: give it a new head for these, and train only that. transfer_to: keep its backbone,
    and the head as far as text means the same, for these classes instead of its own. text_encoder: for the new classes.
    choice: default: all folds but the test. Cases that have no fold yet get one first. pseudo: pseudo-labels to learn
    from too, for classes that nobody annotated there; the run keeps whose they are, the model the strictest licence.
    What was read can be read again: the run records the versions of the tables.
    """
    if start_from is None and (add_classes is not None or transfer_to is not None):
        raise ValueError("classes to add or to transfer to: found no version to start from; name one")
    initial = None if start_from is None else read_metadata(fetch_checkpoint(start_from, settings)).model
    network = None if initial is None else settings_from(initial, add_classes, transfer_to, text_encoder)
    if initial is not None and network is not None and add_classes is not None:
        classes = network.classes[len(initial.classes) :] if classes is None else classes
    workspace = open_workspace(settings)
    deal_new_cases(workspace)
    request = new_request(
        preset,
        settings,
        table_versions=workspace.tables.versions(),
        choice=choice or SplitChoice(),
        datasets=None if datasets is None else tuple(datasets),
        classes=None if classes is None else tuple(classes),
        start_from=None if start_from is None else start_from.uri,
        transfer=transfer_to is not None,
        pseudo=pseudo,
    )
    if network is not None:
        request = replace(request, model=as_mapping(network))
    return start_training(request, settings, flow_run_id=flow_run_id)


def start_training(request: TrainRequest, settings: Settings, *, flow_run_id: str | None = None) -> TrainOutcome:
    """Train what is asked for in a new run."""
    return _train(request, settings, None, flow_run_id)


def resume_training(run_id: str, settings: Settings, *, flow_run_id: str | None = None) -> TrainOutcome:
    """Bring the training `run_id`, which was stopped or killed, to its end: the same run, data and weights.

    It goes on from its last checkpoint, or from the start where there is none yet. Raises LookupError for a run that
    is no training or has finished, RuntimeError where another process is still at it.
    """
    return _train(stored_request(run_id, settings, KIND), settings, run_id, flow_run_id)


def _train(request: TrainRequest, settings: Settings, run_id: str | None, flow_run_id: str | None) -> TrainOutcome:
    """Train what is asked for in a new run, or go on in `run_id`."""
    workspace, versions = open_workspace(settings), dict(request.table_versions)
    source = training_source(workspace, request.datasets, request.classes, request.choice, versions, request.pseudo)
    chosen = request.preset(settings)
    parent = None if request.start_from is None else model_version(request.start_from, settings)
    initial = None if parent is None else fetch_checkpoint(parent, settings)
    learnt = set(source.annotated_classes())
    if initial is not None and not request.transfer:
        learnt |= set(trained_classes(read_metadata(initial)))
    cases = [case.case_id for case in source.cases()]
    tags = {
        "flow_run_id": flow_run_id,
        "datasets": ",".join(sorted({case_id.split("/")[0] for case_id in cases})),
        "start_from": request.start_from,
        **(makers(source.lineage) if source.lineage else {}),
        FOLD_TAG: None if request.parent_run_id is None else str(request.choice.fold),
    }
    started = time.monotonic()
    with tracked_run(
        settings,
        request.name,
        kind=KIND,
        tags=tags,
        run_id=run_id,
        parent_run_id=request.parent_run_id,
        table_versions=versions,
        system_metrics=True,
    ) as tracked:
        out_dir = settings.workspace.absolute() / "training" / tracked
        with only_process_of(out_dir, tracked):
            if run_id is None:
                seen = sorted({*cases, *([] if parent is None else training_cases(parent, settings))})
                _log_request(request, chosen, source, seen, settings)
            before = _losses_so_far(run_id, out_dir, settings)
            with MetricQueue(tracked, settings) as curves, other_ranks(chosen.train):
                history = LossHistory(chosen.train.steps, curves, before)
                result = train(
                    source,
                    chosen.model,
                    chosen.train,
                    out_dir,
                    on_step=history.add,
                    start_from=initial,
                    transfer=request.transfer,
                    cache_dir=settings.workspace.absolute() / "embeddings",
                    table_versions=versions,
                    extra={
                        "mlflow_run_id": tracked,
                        **({} if request.start_from is None else {"parent": request.start_from}),
                        **_pseudo_entries(source, initial),
                        TRAINED_CLASSES: ",".join(name for name in chosen.model.classes if name in learnt),
                    },
                )
            seconds = time.monotonic() - started
            now = int(time.time() * 1000)
            figures = {"seconds": seconds, "patches_per_second": result.patches_per_s}
            model = register(
                Registration(
                    run_id=tracked,
                    checkpoint=result.checkpoint,
                    tags={"train_run_id": tracked, "table_versions": json.dumps(versions)},
                    metrics=(
                        *curves.undelivered,
                        *(MetricRow(name, value, now, result.steps) for name, value in figures.items()),
                    ),
                    files=(loss_curves(history.rows, out_dir / "loss.png"),),
                    alias=CHALLENGER if request.becomes_challenger else None,
                ),
                settings,
            )
    return TrainOutcome(
        run_id=tracked,
        model=model,
        steps=result.steps,
        final_loss=result.final_losses.get("loss", history.last_loss),
        seconds=seconds,
        patches_per_second=result.patches_per_s,
        data_wait_share=result.data_wait_share,
        cases=len(cases),
        table_versions=versions,
        resumed_from=result.resumed_from,
    )


def _log_request(
    request: TrainRequest, chosen: Preset, source: LakePatchSource, seen: Sequence[str], settings: Settings
) -> None:
    """Write down what the run was asked for, first of all what it needs to go on if it is killed."""
    mlflow.log_dict(request.as_dict(), REQUEST)
    log_parameters({"model": as_mapping(chosen.model), "train": as_mapping(chosen.train)})
    mlflow.log_params({"split": request.choice.split, "held_out": request.choice.held_out_name})
    mlflow.log_text("\n".join(seen), TRAINING_CASES)
    log_training_data(source, seen, settings)
    if request.pseudo is not None:
        mlflow.log_dict({**asdict(request.pseudo), "annotations": source.lineage}, PSEUDO_LABELS)
        labels = sum(len(one["classes"]) for one in source.lineage)
        mlflow.log_params({"use_pseudo": request.pseudo.trusted, "pseudo_labels": labels})
    shares = SamplingPlan(source.cases(), chosen.model, chosen.train).shares()
    mlflow.log_dict({"classes": shares.classes, "datasets": shares.datasets, "pseudo": shares.pseudo}, SAMPLING)


def _pseudo_entries(source: LakePatchSource, initial: Path | None) -> dict[str, str]:
    """Return what a checkpoint says of the pseudo-labels it learnt from."""
    if not source.lineage:
        return {}
    before = None if initial is None else read_metadata(initial).extra.get(LICENCE)
    return {"pseudo_models": makers(source.lineage)["pseudo_models"], **licence_entries(source.lineage, before)}


def _losses_so_far(run_id: str | None, out_dir: Path, settings: Settings) -> list[dict[str, float]]:
    """Return the losses that a run which goes on has logged up to the checkpoint it goes on from."""
    if run_id is None or not (out_dir / LAST).is_file():
        return []
    step, client = read_metadata(out_dir / LAST).step, mlflow_client(settings)
    rows: dict[int, dict[str, float]] = {}
    for name in ("loss", "bce", "dice"):
        for metric in client.get_metric_history(run_id, name):
            if metric.step <= step:
                rows.setdefault(metric.step, {"step": metric.step})[name] = metric.value
    return [rows[number] for number in sorted(rows) if len(rows[number]) == 4]


class LossHistory:
    """The losses of every step, passed on to MLflow every few steps and to the progress bar at each."""

    def __init__(self, steps: int, curves: MetricQueue, before: Sequence[dict[str, float]] = ()) -> None:
        self.rows: list[dict[str, float]] = list(before)
        self._curves = curves
        self._steps = steps

    @property
    def last_loss(self) -> float:
        """The loss of the last step known, NaN without one."""
        return self.rows[-1]["loss"] if self.rows else float("nan")

    def add(self, step: int, measured: dict[str, float]) -> None:
        """Keep the losses and rates of step number `step`, counted from 1."""
        self.rows.append({"step": step, **measured})
        left = f", {duration(measured['seconds_left'])} left" if step < self._steps else ""
        report_progress(
            KIND,
            step,
            self._steps,
            f"loss {measured['loss']:.3f}, {measured['patches_per_s']:.3g} patches/s, "
            f"data wait {measured['data_wait_share']:.0%}{left}",
        )
        if step % LOG_EVERY_STEPS == 0 or step == self._steps:
            self._curves.add(measured, step)


start_training_task = as_task(start_training, "start-training", tags=["gpu"])
train_model_task = as_task(train_model, "train-model", tags=["gpu"])
resume_training_task = as_task(resume_training, "resume-training", tags=["gpu"])
