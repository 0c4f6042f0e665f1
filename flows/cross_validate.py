"""The `cross_validate` flow: a model for each fold, scored on what it has not seen, and all of them as one version."""

from __future__ import annotations

import json
from collections.abc import Sequence

import mlflow
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.evaluate import evaluate
from flows.progress_artifact import progress_artifact
from flows.run_record import recorded_run
from models.ranks import launched_rank
from tasks.cross_validation import FOLDS_TAG, KIND, CrossValidation, finish, fold_request, fold_state, folds_to_do
from tasks.registry import ModelVersion
from tasks.report import markdown_table
from tasks.settings import Settings
from tasks.splits import SplitChoice, deal_new_cases
from tasks.tracking import mlflow_client, tracked_run
from tasks.train import resume_training_task, start_training_task
from tasks.train_request import REQUEST, TrainRequest, new_request, run_to_resume, stored_request
from tasks.workspace import open_workspace


@flow(name="cross-validate", validate_parameters=False)
def cross_validate(
    preset: str = "paper",
    settings: Settings | None = None,
    folds: Sequence[int] = (0, 1, 2, 3, 4),
    datasets: Sequence[str] | None = None,
    resume: str | None = None,
) -> CrossValidation:
    """Train and evaluate one model a fold, then register them together as the new `challenger`.

    Afterwards there is an MLflow run with the scores over all folds, in it a run for each training and evaluation, a
    version for each fold and one of all. resume: go on in this run (`last`: the newest that has not finished): folds
    that are trained and scored are left alone, one that was stopped goes on from its last checkpoint.
    """
    settings = settings or Settings()
    if launched_rank() is not None:
        raise ValueError(
            "cross-validate starts its own processes, but was started by torchrun; start it plainly, or train fold by "
            "fold with `ctfactory train --fold k` under torchrun"
        )
    about = {"preset": preset, "folds": list(folds)} if resume is None else {"resume": resume}
    with recorded_run("cross-validate", settings, about) as record:
        request, chosen, known = _asked(preset, settings, folds, datasets, resume)
        record.table_versions = dict(request.table_versions)
        tags = {"flow_run_id": record.flow_run_id, FOLDS_TAG: json.dumps(chosen)}
        with tracked_run(
            settings, request.name, kind=KIND, tags=tags, run_id=known, table_versions=request.table_versions
        ) as run_id:
            if known is None:
                mlflow.log_dict(request.as_dict(), REQUEST)
            versions = {fold: _fold(request, fold, run_id, settings, record.flow_run_id) for fold in chosen}
            result = finish(run_id, versions, settings)
        record.mlflow_run_id, record.model_version = run_id, str(result.model.version)
        record.counts = {"folds": len(chosen)}
        create_markdown_artifact(
            f"# {result.model.uri}\n\n{len(chosen)} models together, MLflow run `{run_id}`. Scores of each case by the "
            f"model that had not seen it:\n\n{markdown_table(result.classes)}",
            key="cross-validate",
        )
        return result


def _asked(
    preset: str, settings: Settings, folds: Sequence[int], datasets: Sequence[str] | None, resume: str | None
) -> tuple[TrainRequest, tuple[int, ...], str | None]:
    """Return the training that every fold is one of, the folds, and the run to go on in."""
    if resume is not None:
        run_id = run_to_resume(resume, settings, KIND)
        request = stored_request(run_id, settings, KIND)
        return request, tuple(json.loads(mlflow_client(settings).get_run(run_id).data.tags[FOLDS_TAG])), run_id
    chosen = folds_to_do(folds)
    workspace = open_workspace(settings)
    deal_new_cases(workspace)
    request = new_request(
        preset,
        settings,
        table_versions=workspace.tables.versions(),
        choice=SplitChoice(),
        datasets=None if datasets is None else tuple(datasets),
    )
    return request, chosen, None


def _fold(
    request: TrainRequest, fold: int, parent_run_id: str, settings: Settings, flow_run_id: str | None
) -> ModelVersion:
    """Bring one fold to its end, from wherever it is."""
    state = fold_state(parent_run_id, fold, settings)
    version = state.version
    if version is None:
        with progress_artifact("train"):
            if state.waiting is not None:
                version = resume_training_task(state.waiting, settings, flow_run_id=flow_run_id).model
            else:
                asked = fold_request(request, fold, parent_run_id)
                version = start_training_task(asked, settings, flow_run_id=flow_run_id).model
    if not state.scored:
        evaluate(
            version.uri,
            settings,
            list(request.datasets) if request.datasets else None,
            SplitChoice(fold=fold),
            parent_run_id,
        )
    return version
