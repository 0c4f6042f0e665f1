"""The `ctfactory` command. Each command imports its flow when it runs: Prefect, torch and MLflow take seconds."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows import (
    cli_agreement,
    cli_calibrate,
    cli_catalog,
    cli_evaluate,
    cli_export,
    cli_fetch,
    cli_inspect,
    cli_labels,
    cli_lake,
    cli_models,
    cli_predict,
    cli_promote,
    cli_pseudo_label,
    cli_splits,
    cli_train,
)
from flows.cli_context import flow_context
from flows.cli_options import (
    EXIT_CASES_REFUSED,
    EXIT_NOT_PROMOTED,
    EXIT_REFUSED,
    AsJson,
    CaseList,
    Datasets,
    DropLeaking,
    Fold,
    Model,
    PresetName,
    PseudoCohort,
    Split,
    UsePseudo,
    Workspace,
    pseudo_choice,
    settings_for,
    split_choice,
    split_names,
)
from flows.environment import prepare_environment

app = typer.Typer(
    name="ctfactory",
    help="From partially labelled abdominal CT data sets to a universal model and pseudo-labels one can trust.\n\n"
    "Start with `ctfactory demo`: the whole line on miniatures, offline, in minutes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(cli_inspect.status)
app.command()(cli_inspect.settings)
app.command()(cli_fetch.fetch)
app.command()(cli_train.train)
app.command("cross-validate")(cli_train.cross_validate)
app.command()(cli_predict.predict)
app.command("pseudo-label")(cli_pseudo_label.pseudo_label)
app.command()(cli_evaluate.evaluate)
app.command()(cli_agreement.agreement)
app.command()(cli_promote.promote)
app.command()(cli_promote.rollback)
app.command()(cli_promote.approve)
app.command()(cli_promote.promotions)
app.command()(cli_export.export)
app.command()(cli_calibrate.calibrate)
app.add_typer(cli_inspect.datasets_app, name="datasets")
app.add_typer(cli_lake.lake_app, name="lake")
app.add_typer(cli_catalog.catalog_app, name="catalog")
app.add_typer(cli_models.models_app, name="models")
app.add_typer(cli_splits.splits_app, name="splits")
app.add_typer(cli_labels.labels_app, name="labels")
app.add_typer(cli_labels.review_app, name="review")


@app.callback()
def _before_every_command(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log and full tracebacks.")] = False,
) -> None:
    prepare_environment(verbose=verbose)
    if verbose:
        os.environ["CTFACTORY_TRACEBACK"] = "1"


@app.command()
def demo(
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Folder for everything the demo makes.")] = Path(
        "demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Run the whole line on miniatures: ingest, train, evaluate, promote, pseudo-label, report.

    Needs no network, no account and no GPU; about eight minutes on two cores.
    """
    from flows.demo import demo_settings, print_demo
    from flows.factory import factory

    settings = demo_settings(workspace)
    with flow_context(settings, as_json=as_json):
        report = factory(settings)
    print_demo(report, settings, as_json=as_json)
    if not report.promotion.promoted:
        raise typer.Exit(EXIT_NOT_PROMOTED)


@app.command()
def ingest(
    dataset: Annotated[str, typer.Argument(help="A data set's id (`ctfactory datasets list`), or `local`.")],
    source: Annotated[
        str | None,
        typer.Option("--source", "-s", help="Folder of the data set's files; `download` fetches them first."),
    ] = None,
    cohort: Annotated[str | None, typer.Option(help="Name in the lake for a folder read as `local`.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="A label variant of the data set (see `ctfactory datasets show ID`).")
    ] = None,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="Write and ingest a synthetic miniature; the data set may be `all`.")
    ] = False,
    cases: Annotated[int, typer.Option(min=1, help="Cases of each miniature.")] = 2,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Read a data set's folder into the lake; what is there already is left alone.

    Exit code 3 when a case was refused: `ctfactory status` shows why.
    """
    from flows.console import console, print_json, print_table
    from flows.ingest import DOWNLOAD
    from flows.ingest import ingest as ingest_flow

    if miniature:
        _ingest_miniature(dataset, source, cohort, variant, cases, workspace, as_json=as_json)
        return
    if source is None:
        raise ValueError(
            f"ingest {dataset}: give --source FOLDER with the data set's files, --source download, or --miniature"
        )
    if cohort is not None and dataset != "local":
        raise ValueError(f"--cohort is for `local`, but the data set is {dataset!r}; leave --cohort out")
    if source != DOWNLOAD and not Path(source).is_dir():
        raise FileNotFoundError(f"--source {source}: no such folder; give the folder that holds the data set's files")
    settings = settings_for(workspace)
    with flow_context(settings, as_json=as_json):
        report = ingest_flow(dataset, source, settings, cohort, variant)
    if as_json:
        print_json(
            {
                "dataset": report.dataset,
                **report.counts,
                "skipped_files": report.skipped_files,
                "remarks": [vars(item) for item in report.remarks],
            }
        )
    else:
        remarks = [(item.case_id, item.outcome, item.message) for item in report.remarks]
        if remarks:
            print_table("Remarks", ("case", "outcome", "remark"), remarks)
        told = ", ".join(f"{count} {name}" for name, count in report.counts.items())
        nothing = "nothing to do: " if report.nothing_to_do else ""
        console.print(f"{report.dataset}: {nothing}{told}, {report.skipped_files} stray files skipped")
    if report.counts["quarantined"]:
        raise typer.Exit(EXIT_CASES_REFUSED)


def _ingest_miniature(
    dataset: str,
    source: str | None,
    cohort: str | None,
    variant: str | None,
    cases: int,
    workspace: Path | None,
    *,
    as_json: bool,
) -> None:
    """Ingest synthetic miniatures; exit code 3 when a case was refused that its card does not announce."""
    from flows.ingest_all import cards_of, ingest_miniatures, print_ingest_all

    if source is not None or cohort is not None:
        raise ValueError("--miniature writes the files itself; leave --source and --cohort out")
    chosen = cards_of(dataset, variant)
    settings = settings_for(workspace)
    with flow_context(settings, as_json=as_json):
        results = ingest_miniatures(chosen, settings, cases=cases, variant=variant)
    print_ingest_all(results, as_json=as_json)
    if any(one.unexpected for one in results):
        raise typer.Exit(EXIT_CASES_REFUSED)


@app.command("fine-tune")
def fine_tune(
    model: Model,
    config: PresetName = "paper",
    dataset: Datasets = None,
    classes: Annotated[
        str | None, typer.Option(help="Compute the loss on these classes only, separated by commas.")
    ] = None,
    add_classes: Annotated[
        str | None,
        typer.Option(
            help='Give the model these classes too ("left renal vein,right renal vein"): a new head, the rest frozen.'
        ),
    ] = None,
    transfer_to: Annotated[
        str | None, typer.Option(help="Keep the backbone, for these classes in place of the model's own.")
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="Embeds the classes of the two options above; default the model's own encoder."),
    ] = None,
    split: Split = "default",
    fold: Fold = None,
    cases: CaseList = None,
    drop_leaking: DropLeaking = False,
    use_pseudo: UsePseudo = None,
    pseudo_cohort: PseudoCohort = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Go on training from a registered version: all of it, or a head for more classes; it becomes a new version.

    The network stays as the version has it; of --config only the training settings count.
    """
    from flows.train import fine_tune as fine_tune_flow

    settings, choice = settings_for(workspace), split_choice(split, fold, cases, drop_leaking)
    with flow_context(settings, as_json=as_json):
        outcome = fine_tune_flow(
            model,
            config,
            settings,
            dataset or None,
            _names(classes),
            choice,
            add_classes=_names(add_classes),
            transfer_to=_names(transfer_to),
            text_encoder=text_encoder,
            pseudo=pseudo_choice(use_pseudo, pseudo_cohort),
        )
    cli_train.print_training(outcome, as_json=as_json)


@app.command()
def serve(workspace: Workspace = None) -> None:
    """Serve the scheduled deployments of infra/prefect.yaml from this process, until Ctrl-C."""
    from flows.deployments import serve_deployments
    from flows.local_server import prefect_api

    chosen = settings_for(workspace)
    with prefect_api(chosen) as url:
        typer.echo(f"Prefect API: {url}; stop with Ctrl-C")
        serve_deployments(chosen)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else split_names(text)


def main() -> None:
    """Run the command; an error a user can act on is one line on standard error, and exit code 1."""
    # A terminated command must still stop the servers it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except Exception as error:
        if os.environ.get("CTFACTORY_TRACEBACK") or not isinstance(error, _told_in_a_line()):
            raise
        # A KeyError shows its message in quotes unless it is taken from the arguments.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.stderr.write(f"ctfactory: {message}\n")
        sys.exit(EXIT_REFUSED)


def _told_in_a_line() -> tuple[type[Exception], ...]:
    """Return the errors whose message says all; MLflow's, such as of a server that is away, once it was imported."""
    mlflow = sys.modules.get("mlflow.exceptions")
    return (LookupError, ValueError, OSError, RuntimeError, *(() if mlflow is None else (mlflow.MlflowException,)))
