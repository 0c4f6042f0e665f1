"""`ctfactory catalog cases|made-by|low-quality|snapshot`: which labels, of which cases, made by what, read by what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Workspace, opened

if TYPE_CHECKING:
    import pandas as pd

SHOWN = {
    "case_id": "case",
    "class_name": "class",
    "state": "state",
    "ml": "ml",
    "quality_score": "score",
    "model_name": "model",
    "model_version": "version",
    "fold": "fold",
}
"""Columns of a label on the terminal, narrow enough for 80 characters; JSON has all but manifest and sampled voxels."""

ClassName = Annotated[str, typer.Argument(metavar="CLASS", help="A class of the taxonomy, e.g. pancreas_tumor.")]
Limit = Annotated[int, typer.Option(min=1, help="Rows printed as a table; JSON has all.")]


def labelled(
    class_name: Annotated[str, typer.Option("--class", help="A class of the taxonomy, e.g. pancreas_tumor.")],
    state: Annotated[str, typer.Option(help="Whose labels: annotated or pseudo.")] = "annotated",
    present: Annotated[
        bool | None, typer.Option("--present/--absent", help="Only where the class was found, or was not.")
    ] = None,
    limit: Limit = 50,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """List the cases where annotators, or a model, looked for a class."""
    from catalog.queries import labelled_cases

    if state not in ("annotated", "pseudo"):
        raise ValueError(f"--state {state}: expected annotated or pseudo")
    _print(labelled_cases(opened(workspace), class_name, state, present), limit, as_json=as_json)


def made_by(
    version: Annotated[str, typer.Argument(help="A version of a registered model.")],
    model: Annotated[str | None, typer.Option(help="The model's name, where several have this version.")] = None,
    limit: Limit = 50,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """List every label that a model version made."""
    from catalog.queries import made_by as query

    _print(query(opened(workspace), version, model), limit, as_json=as_json)


def low_quality(
    class_name: ClassName,
    below: Annotated[float, typer.Option(help="Quality score, 0 to 1.")] = 0.7,
    limit: Limit = 50,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """List the pseudo-labels of a class whose quality score is below a bar, the lowest first."""
    from catalog.queries import low_quality as query

    _print(query(opened(workspace), class_name, below), limit, as_json=as_json)


def snapshot(
    run: Annotated[str, typer.Argument(help="Id of a run, or of its flow or MLflow run.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show the exact data that a run read: table versions, cases and labels as they were; all rows with --json."""
    from catalog.plain import plain_rows, plain_value
    from catalog.queries import snapshot as query
    from catalog.splits import cases_per_fold
    from flows.catalog_tables import rows_table
    from flows.console import console, print_json

    found = query(opened(workspace), run)
    if as_json:
        cases = found.cases.drop(columns=["manifest", "steps"])
        rows = {"cases": plain_rows(cases), "labels": plain_rows(found.labels)}
        print_json({"run": plain_value(found.run), "table_versions": found.versions, **rows})
        return
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    console.print(f"run {found.run['run_id']} ({found.run['kind']}) read {versions}", soft_wrap=True, highlight=False)
    console.print(f"{len(found.cases)} cases, {len(found.labels)} labels; cases in each fold:", highlight=False)
    folds = cases_per_fold(found.cases).reset_index()
    console.print(rows_table(list(map(str, folds.columns)), folds.values.tolist(), console.width), highlight=False)


def _print(labels: pd.DataFrame, limit: int, *, as_json: bool) -> None:
    from catalog.plain import plain_rows
    from catalog.splits import fold_name
    from flows.catalog_tables import rows_table
    from flows.console import console, print_json

    if as_json:
        print_json(plain_rows(labels))
        return
    if labels.empty:
        console.print("none", highlight=False)
        return
    shown = labels[list(SHOWN)].head(limit)
    rows = [list(row.values()) for row in plain_rows(shown.assign(fold=[fold_name(fold) for fold in shown["fold"]]))]
    console.print(rows_table(list(SHOWN.values()), rows, console.width), highlight=False)
    if len(labels) > limit:
        console.print(f"{limit} of {len(labels)} rows; --limit shows more", highlight=False)
