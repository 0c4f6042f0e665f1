"""What a training was asked for, kept with its MLflow run: a training that was killed goes on from it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from models.ranks import as_launched
from models.settings import Preset, as_mapping, load_preset, model_settings, train_settings
from tasks.pseudo_choice import PseudoChoice
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import find_runs, mlflow_client

REQUEST = "request.json"
"""Artifact of a training run."""
NEWEST = "last"
"""Stands for the newest run that has not finished."""


@dataclass(frozen=True)
class TrainRequest:
    """A training, by everything that decides what is learnt.

    name: of the run. model, train: the settings, resolved. table_versions: of the tables it reads. start_from: address
    of the version it begins with. parent_run_id: MLflow run it is a part of. becomes_challenger: whether the version
    that it registers gets the alias. transfer: other classes in place of those of `start_from`. pseudo: which
    pseudo-labels it learns from beside human labels.
    """

    name: str
    model: Mapping[str, Any]
    train: Mapping[str, Any]
    table_versions: Mapping[str, int]
    choice: SplitChoice
    datasets: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    start_from: str | None = None
    parent_run_id: str | None = None
    becomes_challenger: bool = True
    transfer: bool = False
    pseudo: PseudoChoice | None = None

    def preset(self, settings: Settings) -> Preset:
        """Return the settings of network and training, with devices and threads as they are here and now."""
        here = load_preset_here(Preset(model_settings(self.model), train_settings(self.train)), settings)
        return replace(here, train=as_launched(here.train))

    def as_dict(self) -> dict[str, Any]:
        """Return the request as JSON-able values."""
        return asdict(self)


def load_preset_here(preset: Preset | str, settings: Settings) -> Preset:
    """Return the preset with what the settings decide: the lake's spacing, the device and its threads.

    A model is trained at the spacing of the lake it reads, whatever its preset was written for.
    """
    if isinstance(preset, str):
        preset = load_preset(preset)
    train = replace(preset.train, device=settings.torch_device())
    if settings.threads is not None:
        train = replace(train, threads=settings.threads)
    return Preset(replace(preset.model, spacing_mm=settings.spacing_mm), train)


def new_request(preset: str, settings: Settings, **asked: Any) -> TrainRequest:
    """Return the request for a training by `preset`, a name in `models/presets` or a file; asked: as TrainRequest."""
    here = load_preset_here(preset, settings)
    return TrainRequest(f"train {Path(preset).stem}", as_mapping(here.model), as_mapping(here.train), **asked)


def stored_request(run_id: str, settings: Settings, kind: str) -> TrainRequest:
    """Return what the run was asked for; LookupError for one that is of another kind or has finished."""
    client = mlflow_client(settings)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise LookupError(f"{run_id}: no such MLflow run; {_unfinished_text(settings, kind)}") from error
    if run.data.tags.get("kind") != kind:
        raise LookupError(
            f"{run_id}: a run of kind {run.data.tags.get('kind')}, expected {kind}; {_unfinished_text(settings, kind)}"
        )
    if run.info.status == "FINISHED":
        raise LookupError(f"{run_id}: this run has finished; {_unfinished_text(settings, kind)}")
    try:
        values = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{REQUEST}"))
    except (MlflowException, OSError) as error:
        raise LookupError(
            f"{run_id}: killed before it kept {REQUEST}, start anew; {_unfinished_text(settings, kind)}"
        ) from error
    lists = {name: None if values[name] is None else tuple(values[name]) for name in ("datasets", "classes")}
    only = values["choice"]["only"]
    choice = SplitChoice(**{**values["choice"], "only": None if only is None else tuple(only)})
    pseudo = values.get("pseudo")  # absent in requests of earlier versions
    pseudo = None if pseudo is None else PseudoChoice.of(pseudo["trusted"], pseudo["cohorts"])
    return TrainRequest(**{**values, **lists, "choice": choice, "pseudo": pseudo})


def unfinished_runs(settings: Settings, kind: str, parent_run_id: str | None = None) -> list[str]:
    """Return the ids of the runs of a kind that were not brought to their end, newest first."""
    return [
        run.info.run_id
        for run in find_runs(settings, kind, parent_run_id=parent_run_id)
        if run.info.status != "FINISHED"
    ]


def run_to_resume(asked: str, settings: Settings, kind: str) -> str:
    """Return the id of the run asked for; `last` is the newest of its kind that has not finished."""
    if asked != NEWEST:
        return asked
    waiting = unfinished_runs(settings, kind)
    if not waiting:
        raise LookupError(f"--resume last: {_unfinished_text(settings, kind)}")
    return waiting[0]


def _unfinished_text(settings: Settings, kind: str) -> str:
    waiting = unfinished_runs(settings, kind)
    return f"not finished: {', '.join(waiting)}" if waiting else f"no {kind} run waits to go on"


@contextmanager
def only_process_of(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run's folder while the block runs; RuntimeError where another process does. A kill lets go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{run_id}: another process is at this training; wait for it or stop it") from error
        yield
