"""The `train` and `fine_tune` flows: what the lake holds becomes a model version with the alias `challenger`."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.progress_artifact import progress_artifact
from flows.run_record import RunRecord, recorded_run
from tasks.pseudo_choice import PseudoChoice
from tasks.registry import model_version
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.train import KIND, TrainOutcome, resume_training_task, train_model_task
from tasks.train_request import run_to_resume


@flow(name="train", validate_parameters=False)
def train(
    preset: str = "paper",
    settings: Settings | None = None,
    datasets: Sequence[str] | None = None,
    choice: SplitChoice | None = None,
    resume: str | None = None,
    pseudo: PseudoChoice | None = None,
) -> TrainOutcome:
    """Train the universal model on every human label that the split (default: its test) does not hold out.

    Afterwards there is an MLflow run with parameters, loss curves and table versions, and a registered version aliased
    `challenger`. A second run trains another version. preset: a name in `models/presets`, or a file. resume: go on in
    this MLflow run, which was stopped or killed, `last` for the newest such; it knows all the rest. pseudo: which
    pseudo-labels are learnt from too.
    """
    settings = settings or Settings()
    about = {"preset": preset} if resume is None else {"resume": resume}
    with recorded_run("train", settings, about) as record, progress_artifact("train"):
        if resume is not None:
            run_id = run_to_resume(resume, settings, KIND)
            outcome = resume_training_task(run_id, settings, flow_run_id=record.flow_run_id)
        else:
            outcome = train_model_task(
                preset, settings, datasets=datasets, choice=choice, pseudo=pseudo, flow_run_id=record.flow_run_id
            )
        _publish(outcome, record)
        return outcome


@flow(name="fine-tune", validate_parameters=False)
def fine_tune(
    model: str,
    preset: str = "paper",
    settings: Settings | None = None,
    datasets: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    choice: SplitChoice | None = None,
    add_classes: Sequence[str] | None = None,
    transfer_to: Sequence[str] | None = None,
    text_encoder: str | None = None,
    pseudo: PseudoChoice | None = None,
) -> TrainOutcome:
    """Go on training from the registered version `model`, which stays as it is.

    Afterwards there is a new version aliased `challenger`. Its network's settings are those of `model`; of the preset
    the training settings count. Without the lists of classes it has the same ones, and all of the network is trained.
    classes: the loss is computed on these alone; the others keep their outputs only as far as the shared network lets
    them. add_classes: new classes get a head of their own, the only part that is trained, and the older ones keep
    their outputs to the last bit. transfer_to: these classes take the place of the older ones. text_encoder: for the
    new classes, where the model's own cannot be had. pseudo: which pseudo-labels are learnt from too: from the
    champion that made them, this trains the challenger of the next round.
    """
    settings = settings or Settings()
    about = {"preset": preset, "model": model}
    with recorded_run("fine-tune", settings, about) as record, progress_artifact("train"):
        outcome = train_model_task(
            preset,
            settings,
            datasets=datasets,
            classes=classes,
            start_from=model_version(model, settings),
            add_classes=add_classes,
            transfer_to=transfer_to,
            text_encoder=text_encoder,
            choice=choice,
            pseudo=pseudo,
            flow_run_id=record.flow_run_id,
        )
        _publish(outcome, record)
        return outcome


def _publish(outcome: TrainOutcome, record: RunRecord) -> None:
    record.mlflow_run_id = outcome.run_id
    record.model_version = str(outcome.model.version)
    record.table_versions = outcome.table_versions
    record.counts = {"cases": outcome.cases, "steps": outcome.steps}
    create_markdown_artifact(
        f"# {outcome.model.uri}\n\nMLflow run `{outcome.run_id}`, {outcome.steps} steps on {outcome.cases} cases, "
        f"final loss {outcome.final_loss:.3f}, {outcome.seconds:.0f} s, "
        f"{outcome.patches_per_second:.1f} patches/s, data wait {outcome.data_wait_share:.0%}.",
        key="train",
    )
