"""The commands about splits: which fold each data set's cases are in, and which cases are one scan."""

from __future__ import annotations

import typer

from flows.cli_options import AsJson, Workspace, settings_for

splits_app = typer.Typer(help="Folds and twins: what keeps training and test apart.", no_args_is_help=True)


@splits_app.callback()
def _splits() -> None:
    """Keep `show` a word of its own while it is the only command."""


@splits_app.command("show")
def splits_show(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show cases per fold and data set, the groups of cases that are one scan, and those of training and external."""
    from catalog.splits import cases_per_fold, twin_groups
    from flows.console import console, print_json, print_table
    from tasks.workspace import open_workspace

    cases = open_workspace(settings_for(workspace)).tables.cases()
    folds, groups = cases_per_fold(cases), twin_groups(cases)
    across = groups[groups["across_roles"].astype(bool)]
    if as_json:
        print_json(
            {
                "cases": {str(name): {str(fold): int(n) for fold, n in row.items()} for name, row in folds.iterrows()},
                "groups": groups.to_dict("records"),
                "groups_across_roles": list(across["split_group"]),
            }
        )
        return
    columns = ["data set", *(name if name == "external" else f"fold {name}" for name in map(str, folds.columns))]
    print_table("Cases", columns, [(name, *map(int, row)) for name, row in zip(folds.index, folds.values, strict=True)])
    rows = [
        (row["split_group"], row["fold"], "yes" if row["across_roles"] else "", ", ".join(row["case_ids"]))
        for row in groups.to_dict("records")
    ]
    if rows:
        print_table("Cases that are one scan", ("group", "fold", "training and external", "cases"), rows)
    console.print(f"{len(cases)} cases, {len(groups)} groups of twins, {len(across)} of them training and external")
