"""The commands about models: import a published checkpoint, list, show and verify versions, model cards."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.cli_embeddings import embeddings_app
from flows.cli_options import AsJson, Model, Workspace, settings_for

models_app = typer.Typer(help="Registered model versions, published checkpoints, embeddings.", no_args_is_help=True)
models_app.add_typer(embeddings_app, name="embeddings")


@models_app.command("import")
def models_import(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|URL", help="The authors' .pth file, or its address; `published` for theirs."),
    ],
    backbone: Annotated[str, typer.Option(help="Which published network the file holds: unet or swinunetr.")],
    classes: Annotated[
        str | None,
        typer.Option(help="What the file's outputs are, in its order, separated by commas; default the published 32."),
    ] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="Refuse a file with another digest.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Register a published checkpoint as a version aliased `published-BACKBONE`; the same file is imported once.

    A download goes on where it was cut. The published weights are licensed CC BY-NC-ND 4.0: non-commercial.
    """
    from flows.console import console, errors, notices, print_json, progress_bars
    from models.published import ADDRESS, PUBLISHED_CLASSES, published
    from tasks.import_model import import_model

    settings = settings_for(workspace)
    place = ADDRESS + published(backbone).file if source == "published" else source
    names = PUBLISHED_CLASSES if classes is None else [name.strip() for name in classes.split(",") if name.strip()]
    with progress_bars(enabled=not as_json), notices():
        outcome = import_model(place, backbone, settings, classes=names, expected_sha256=sha256)
    for doubt in outcome.doubts:
        errors.print(f"look at this: {doubt}", style="yellow", soft_wrap=True, highlight=False)
    if as_json:
        print_json(
            {
                "model": outcome.model.uri,
                "aliases": list(outcome.model.aliases),
                "known": outcome.known,
                "metadata": json.loads(outcome.metadata.as_json()),
                "doubts": list(outcome.doubts),
            }
        )
        return
    told = "was imported before as" if outcome.known else "is now"
    console.print(
        f"{place} {told} {outcome.model.uri} ({', '.join(outcome.model.aliases)}), {len(names)} classes; next: "
        f"ctfactory evaluate {outcome.model.uri} or ctfactory pseudo-label COHORT --model {outcome.model.uri}",
        soft_wrap=True,
        highlight=False,
    )


@models_app.command("list")
def models_list(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List every registered version: aliases, network, classes, licence, where it comes from."""
    from flows.console import print_json, print_table
    from tasks.models import list_models

    rows = list_models(settings_for(workspace))
    if as_json:
        print_json(rows)
        return
    columns = ("model", "aliases", "made by", "backbone", "classes", "licence", "source")
    cells = [
        (row["model"].removeprefix("models:/"), *(_text(value) for value in list(row.values())[1:])) for row in rows
    ]
    print_table("Models", columns, cells)


@models_app.command("show")
def models_show(model: Model, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show one version: network, classes in order, text encoder, licence, training, tags."""
    from flows.console import notices, print_json, print_table
    from tasks.models import show_model

    with notices():
        found = show_model(model, settings_for(workspace))
    if as_json:
        print_json(found)
        return
    print_table(found["model"], ("", ""), [(name, _text(value)) for name, value in found.items()])


@models_app.command("card")
def models_card(model: Model, workspace: Workspace = None) -> None:
    """Write the model card of a version anew from what is known now, in MLflow too, and print it as Markdown."""
    from flows.console import notices
    from tasks.model_card import refresh_model_card
    from tasks.registry import model_version

    settings = settings_for(workspace)
    with notices():
        text = refresh_model_card(model_version(model, settings), settings)
    typer.echo(text, nl=False)


@models_app.command("register")
def models_register(
    run: Annotated[str | None, typer.Argument(help="MLflow run whose model waits; default: every one.")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Register what was kept in WORKSPACE/pending while MLflow did not answer.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Finish the registration of trained models that were kept aside because MLflow did not answer."""
    from flows.console import console, print_json
    from flows.run_record import recorded_run
    from tasks.pending import pending_registrations, register_pending

    if not pending:
        raise ValueError("models register: expected --pending; a file of weights is registered by `models import`")
    settings = settings_for(workspace)
    made = {}
    for run_id in [run] if run else pending_registrations(settings):
        with recorded_run("register", settings, {"pending": run_id}) as record:
            version = register_pending(run_id, settings)
            record.mlflow_run_id, record.model_version = run_id, str(version.version)
        made[run_id] = version.uri
    if as_json:
        print_json(made)
        return
    for run_id, uri in made.items():
        console.print(f"run {run_id} is now {uri}", soft_wrap=True, highlight=False)
    if not made:
        console.print("no registration waits")


@models_app.command("verify")
def models_verify(
    model: Model,
    record: Annotated[
        bool, typer.Option("--record", help="Keep today's digest for a version that was registered without one.")
    ] = False,
    workspace: Workspace = None,
) -> None:
    """Compare the stored weights of a version, byte by byte, with the digest of their registration."""
    from flows.console import console
    from tasks.registry import model_version, verify_weights
    from tasks.weights import WeightsChanged

    settings = settings_for(workspace)
    version = model_version(model, settings)
    found, registered = verify_weights(version, settings, record=record)
    if registered is None:
        raise ValueError(
            f"{version.uri}: registered without a digest, its weights have SHA-256 {found} now; --record keeps that, "
            "if you trust them"
        )
    if found != registered:
        raise WeightsChanged(f"{version.uri}: its weights have SHA-256 {found}, but {registered} were registered")
    console.print(f"{version.uri}: as registered, SHA-256 {found}", soft_wrap=True, highlight=False)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_text(one)}" for name, one in value.items())
    return ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)
