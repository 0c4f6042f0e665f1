"""Cross-validation: which folds are trained and scored already, and one version of all their models together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pandas as pd

from models.checkpoint import load_model, read_metadata, save_checkpoint
from tasks.evaluation_tables import class_table, summary_metrics
from tasks.evidence import EVALUATION_TAG, SCORES
from tasks.pending import Registration, register
from tasks.prediction import TRAINED_CLASSES, trained_classes
from tasks.registry import (
    CHALLENGER,
    TRAINING_CASES,
    ModelVersion,
    fetch_checkpoint,
    model_version,
    training_cases,
)
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import find_runs, mlflow_client
from tasks.train import FOLD_TAG
from tasks.train import KIND as TRAINING
from tasks.train_request import TrainRequest
from tasks.training_data import log_data_licences

KIND = "cross-validation"
FOLDS_TAG = "folds"


@dataclass(frozen=True)
class FoldState:
    """How far a fold is. version: of its trained model. waiting: the run of a training that was stopped."""

    version: ModelVersion | None = None
    waiting: str | None = None
    scored: bool = False


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The models of all folds, the version that they are together, and their scores on cases they had not seen."""

    run_id: str
    model: ModelVersion
    folds: dict[int, ModelVersion]
    summary: dict[str, float]
    classes: pd.DataFrame


def fold_request(request: TrainRequest, fold: int, parent_run_id: str) -> TrainRequest:
    """Return the training of one fold, a part of the run `parent_run_id`."""
    return replace(
        request,
        name=f"{request.name}, fold {fold}",
        choice=SplitChoice(fold=fold),
        parent_run_id=parent_run_id,
        becomes_challenger=False,
    )


def fold_state(parent_run_id: str, fold: int, settings: Settings) -> FoldState:
    """Return how far a fold of the cross-validation is."""
    client = mlflow_client(settings)
    runs = [
        run
        for run in find_runs(settings, TRAINING, parent_run_id=parent_run_id)
        if run.data.tags.get(FOLD_TAG) == str(fold)
    ]
    for run in runs:
        if run.info.status != "FINISHED":
            continue
        found = client.search_model_versions(f"name = '{settings.model_name}' and run_id = '{run.info.run_id}'")
        if found:
            version = model_version(f"models:/{settings.model_name}/{found[0].version}", settings)
            return FoldState(version, scored=EVALUATION_TAG in (found[0].tags or {}))
    return FoldState(waiting=runs[0].info.run_id if runs else None)


def finish(parent_run_id: str, folds: Mapping[int, ModelVersion], settings: Settings) -> CrossValidation:
    """Register the models of all folds as one version, the challenger, in the active run; log scores over all folds.

    Each case is scored by the model of the fold that held it out. The version has seen all their training cases.
    """
    folder = settings.workspace.absolute() / "training" / parent_run_id / "ensemble"
    _write_members(folder, folds, parent_run_id, settings)
    seen = sorted({case_id for version in folds.values() for case_id in training_cases(version, settings)})
    mlflow.log_text("\n".join(seen), TRAINING_CASES)
    log_data_licences(seen, settings)
    by_fold = {fold: _scores(version, settings) for fold, version in folds.items()}
    scores = pd.concat([table.assign(fold=fold) for fold, table in by_fold.items()], ignore_index=True)
    summary, classes = summary_metrics(scores, settings.detection_min_ml), class_table(scores)
    mlflow.log_metrics(summary)
    for fold, table in by_fold.items():
        mlflow.log_metrics(
            {f"fold_{fold}.{name}": value for name, value in summary_metrics(table, settings.detection_min_ml).items()}
        )
    mlflow.log_text(scores.to_csv(index=False), "scores.csv")
    mlflow.log_text(classes.to_csv(index=False), "classes.csv")
    uris = ", ".join(version.uri for version in folds.values())
    tags = {"train_run_id": parent_run_id, "members": uris}
    model = register(Registration(parent_run_id, folder, tags, alias=CHALLENGER), settings)
    return CrossValidation(parent_run_id, model, dict(folds), summary, classes)


def _write_members(folder: Path, folds: Mapping[int, ModelVersion], parent_run_id: str, settings: Settings) -> None:
    """Write each fold's model; what they are known to predict together is what every fold has seen annotated."""
    checkpoints = {fold: fetch_checkpoint(version, settings) for fold, version in folds.items()}
    learnt = [set(trained_classes(read_metadata(path))) for path in checkpoints.values()]
    for fold, path in checkpoints.items():
        network, metadata = load_model(path)
        common = [name for name in metadata.model.classes if all(name in names for names in learnt)]
        extra = {**metadata.extra, "mlflow_run_id": parent_run_id, TRAINED_CLASSES: ",".join(common)}
        save_checkpoint(folder / f"fold_{fold}.safetensors", network, replace(metadata, extra=extra))


def _scores(version: ModelVersion, settings: Settings) -> pd.DataFrame:
    run_id = mlflow_client(settings).get_model_version(version.name, str(version.version)).tags[EVALUATION_TAG]
    return pd.read_parquet(Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=SCORES)))


def folds_to_do(asked: Sequence[int]) -> tuple[int, ...]:
    """Return the folds in order; ValueError where one is none or there are fewer than two."""
    chosen = tuple(sorted(set(asked)))
    for fold in chosen:
        SplitChoice(fold=fold)
    if len(chosen) < 2:
        raise ValueError(f"folds {list(asked)}: expected two or more; one alone is `ctfactory train --fold`")
    return chosen
