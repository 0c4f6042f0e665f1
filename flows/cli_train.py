"""The commands that train: one model, or the five folds of a cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_context import flow_context
from flows.cli_options import (
    AsJson,
    CaseList,
    Datasets,
    DropLeaking,
    Fold,
    PresetName,
    PseudoCohort,
    Split,
    UsePseudo,
    Workspace,
    pseudo_choice,
    settings_for,
    split_choice,
)

if TYPE_CHECKING:
    from tasks.train import TrainOutcome

Resume = Annotated[
    str | None,
    typer.Option(
        "--resume", help="Go on in this MLflow run, which was stopped or killed; `last`: the newest. It knows the rest."
    ),
]


def train(
    config: PresetName = "paper",
    dataset: Datasets = None,
    split: Split = "default",
    fold: Fold = None,
    cases: CaseList = None,
    drop_leaking: DropLeaking = False,
    resume: Resume = None,
    use_pseudo: UsePseudo = None,
    pseudo_cohort: PseudoCohort = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Train the universal model on the lake without its test fold; the new version becomes `challenger`.

    With `devices` above 1 in the preset it takes that many GPUs of this machine. On several machines start it on each
    with torchrun: `torchrun --nnodes 2 --nproc-per-node 8 ... --no-python ctfactory train ...`.
    """
    from models.ranks import launched_rank
    from tasks.ranks import take_part

    settings, choice = settings_for(workspace), split_choice(split, fold, cases, drop_leaking)
    pseudo = pseudo_choice(use_pseudo, pseudo_cohort)
    if launched_rank():
        take_part(settings.torch_device())  # the first process has the flow, MLflow and the registry
        return
    from flows.train import train as train_flow

    with flow_context(settings, as_json=as_json):
        outcome = train_flow(config, settings, dataset or None, choice, resume, pseudo)
    print_training(outcome, as_json=as_json)


def cross_validate(
    config: PresetName = "paper",
    folds: Annotated[str, typer.Option(help="The folds to train, separated by commas.")] = "0,1,2,3,4",
    dataset: Datasets = None,
    resume: Resume = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Train and score one model a fold, and register them together as one model, the new `challenger`.

    Each fold's model is scored on the cases it has not seen; the model of all folds has seen everything but the test
    fold, and predicts by the mean of its members. With --resume, folds that are done are not trained again.
    """
    from flows.console import console, print_json, print_table
    from flows.cross_validate import cross_validate as cross_validate_flow

    if not all(part.strip().isdigit() for part in folds.split(",")):
        raise ValueError(f"--folds {folds}: expected numbers separated by commas, such as 0,1,2")
    settings, chosen = settings_for(workspace), tuple(int(part) for part in folds.split(","))
    with flow_context(settings, as_json=as_json):
        report = cross_validate_flow(config, settings, chosen, dataset or None, resume)
    if as_json:
        print_json(
            {
                "model": report.model.uri,
                "mlflow_run_id": report.run_id,
                "folds": {str(fold): version.uri for fold, version in report.folds.items()},
                "summary": report.summary,
                "classes": report.classes.to_dict("records"),
            }
        )
        return
    print_table("Held-out cases of all folds", list(report.classes.columns), report.classes.to_numpy().tolist())
    print_table("Summary", ("figure", "value"), list(report.summary.items()))
    console.print(
        f"{report.model.uri} is the challenger: {len(report.folds)} models together, MLflow run {report.run_id}",
        soft_wrap=True,
    )


def print_training(outcome: TrainOutcome, *, as_json: bool) -> None:
    """Print what a training has made."""
    from flows.console import console, print_json

    if as_json:
        print_json({**vars(outcome), "model": outcome.model.uri})
        return
    begun = f" (from step {outcome.resumed_from} on)" if outcome.resumed_from else ""
    console.print(
        f"{outcome.model.uri} is the challenger: {outcome.steps} steps{begun} on {outcome.cases} cases, final loss "
        f"{outcome.final_loss:.3f}, {outcome.patches_per_second:.1f} patches/s, MLflow run {outcome.run_id}"
    )
