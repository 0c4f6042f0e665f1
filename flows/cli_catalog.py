"""`ctfactory catalog ...`: questions to the tables, and plain files for other tools. Nothing here changes the lake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import cli_catalog_change, cli_catalog_labels
from flows.cli_options import AsJson, Workspace, opened

catalog_app = typer.Typer(
    help="What the tables know: cases, labels, quarantine, runs; now and earlier.", no_args_is_help=True
)
catalog_app.command("cases")(cli_catalog_labels.labelled)
catalog_app.command()(cli_catalog_labels.made_by)
catalog_app.command()(cli_catalog_labels.low_quality)
catalog_app.command()(cli_catalog_labels.snapshot)
catalog_app.command()(cli_catalog_change.withdraw)
catalog_app.command()(cli_catalog_change.restore)
catalog_app.command()(cli_catalog_change.migrate)

Case = Annotated[str, typer.Argument(help="A case's id, DATASET/NATIVE_ID.")]


@catalog_app.command()
def show(case: Case, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show one case: geometry, versions, licence, split group, fold, flags, steps, and its labels per class."""
    from catalog.reports import describe_case
    from flows.catalog_tables import case_page
    from flows.console import console, print_json

    report = describe_case(opened(workspace), case)
    if as_json:
        print_json(report.as_dict())
    else:
        console.print(case_page(report), highlight=False)


@catalog_app.command()
def coverage(
    value: Annotated[
        str, typer.Option(help="What to count: cases (looked at), present (the class is there), voxels or ml.")
    ] = "cases",
    state: Annotated[
        str, typer.Option(help="Labels that count: annotated, pseudo, or any (once a case, human first).")
    ] = "annotated",
    run: Annotated[
        str | None, typer.Option(help="As a run read the tables: its id, or that of its flow or MLflow run.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the classes from the commonest to the rarest into this PNG.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Count the labelled cases of each class in each data set, with voxels and ml in all."""
    from catalog.plain import plain_value
    from catalog.queries import VALUES, coverages, run_snapshot
    from flows.catalog_tables import coverage_table
    from flows.console import console, print_json

    if value not in VALUES:
        raise ValueError(f"--value {value}: expected {', '.join(VALUES)}")
    if state not in ("annotated", "pseudo", "any"):
        raise ValueError(f"--state {state}: expected annotated, pseudo or any")
    tables = opened(workspace)
    versions = tables.versions() if run is None else run_snapshot(tables, run)
    matrices = coverages(tables, None if state == "any" else state, versions)
    if picture is not None:
        from tasks.coverage_picture import long_tail  # late: matplotlib takes a second

        long_tail(matrices, picture)
    if as_json:
        values = {name: plain_value(matrix.to_dict("index")) for name, matrix in matrices.items()}
        print_json({"state": state, "table_versions": versions, **values})
        return
    console.print(coverage_table(matrices, value, console.width), highlight=False)
    if picture is not None:
        console.print(f"picture: {picture}", soft_wrap=True, highlight=False, markup=False)


@catalog_app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write; absent or empty.")],
    form: Annotated[str, typer.Option("--format", help="parquet, or csv with lists as JSON text.")] = "parquet",
    replace: Annotated[bool, typer.Option("--replace", help="Put this in place of an earlier export.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write the current cases, labels, quarantine and runs as plain files; superseded rows stay in the lake."""
    from catalog.plain_export import export_tables
    from flows.console import console, print_json

    written = export_tables(opened(workspace), folder, form, replace=replace)
    if as_json:
        print_json({"folder": str(written.folder), "rows": written.rows, "table_versions": written.table_versions})
    else:
        told = ", ".join(f"{count} {name}" for name, count in written.rows.items())
        console.print(f"{written.folder}: {told}", soft_wrap=True, highlight=False, markup=False)


@catalog_app.command()
def history(
    case: Annotated[str | None, typer.Argument(help="A case's id, DATASET/NATIVE_ID.")] = None,
    table: Annotated[
        str | None, typer.Option(help="The commits of a table instead: cases, labels, quarantine or runs.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Commits shown, the newest.")] = 50,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show the versions of a case: when, from what, what changed, what superseded what; or a table's commits."""
    from catalog.plain import plain_value
    from catalog.reports import case_history
    from flows.catalog_tables import commits_table, history_page
    from flows.console import console, print_json

    if (case is None) == (table is None):
        raise ValueError("history: give a case's id or --table NAME, one of the two")
    tables = opened(workspace)
    if case is not None:
        found = case_history(tables, case)
        if as_json:
            print_json(found.as_dict())
        else:
            console.print(history_page(found), highlight=False)
    elif table is not None:
        commits = tables.commits(table)
        if as_json:
            print_json(plain_value(commits[:limit]))
        else:
            console.print(commits_table(commits, limit), highlight=False)


@catalog_app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT, in DuckDB's dialect.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows printed as a table; JSON has all.")] = 50,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Answer one SELECT over the views cases, labels, quarantine and runs (current rows). Needs the extra `sql`.

    The columns manifest and sampled_voxels are there only where the query names them.
    """
    from catalog import sql as database
    from flows.catalog_tables import rows_table
    from flows.console import console, print_json

    columns, rows = database.query(opened(workspace), sql)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    console.print(rows_table(columns, rows[:limit], console.width), highlight=False)
    if len(rows) > limit:
        console.print(f"{limit} of {len(rows)} rows; --limit shows more", highlight=False)
