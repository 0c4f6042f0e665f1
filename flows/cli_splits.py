"""The commands about splits: which fold each case is in, which cases are one scan, and where a split would leak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flows.cli_options import AsJson, Split, Workspace, settings_for

if TYPE_CHECKING:
    import pandas as pd

splits_app = typer.Typer(help="Folds and twins: what keeps training and test apart.", no_args_is_help=True)


@splits_app.command("make")
def splits_make(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Give every training case without a fold one, for good; training and evaluation do the same before they begin.

    Five folds for cross-validation and the test, even over data sets and rare classes; a scan shipped twice is in one.
    """
    from flows.console import console, print_json
    from tasks.splits import deal_new_cases
    from tasks.workspace import existing_workspace

    place = existing_workspace(settings_for(workspace))
    dealt = deal_new_cases(place)
    if as_json:
        print_json({"dealt": dealt})
        return
    console.print(f"{dealt} cases were given a fold; those that had one keep it")


@splits_app.command("find-twins")
def splits_find_twins(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Look for scans shipped twice among all cases again, by the fingerprints that ingest stored.

    Ingest does it case by case; this is for lakes that were filled by an older version. 10,000 cases take minutes.
    """
    from flows.console import console, print_json
    from tasks.twins import search_twins
    from tasks.workspace import existing_workspace

    counts = search_twins(existing_workspace(settings_for(workspace)).tables)
    if as_json:
        print_json(counts)
        return
    console.print(
        f"{counts['cases']} cases with a fingerprint: {counts['pairs']} pairs alike, {counts['new_links']} new links"
    )


@splits_app.command("show")
def splits_show(split: Split = "default", workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show cases per fold by data set and by class, the cases that are one scan, and what would leak."""
    from catalog.splits import cases_per_fold, classes_per_fold, twin_groups
    from flows.cli_options import split_choice
    from flows.console import console, print_json, print_table
    from tasks.splits import leaking_pairs, sides
    from tasks.workspace import existing_workspace

    choice = split_choice(split, None, None, drop_leaking=False)
    tables = existing_workspace(settings_for(workspace)).tables
    cases, labels = tables.cases(), tables.labels(state="annotated", columns=["class_name", "voxels"])
    folds, classes, groups = cases_per_fold(cases), classes_per_fold(cases, labels), twin_groups(cases)
    across = groups[groups["across_roles"].astype(bool)]
    side, leaks = sides(cases, choice), leaking_pairs(cases, choice)
    by_side = {str(dataset): dict(found.value_counts()) for dataset, found in side.groupby(cases["dataset"])}
    if as_json:
        print_json(
            {
                "split": choice.split,
                "cases": _as_counts(folds),
                "classes": _as_counts(classes),
                "sides": {dataset: {name: int(n) for name, n in counts.items()} for dataset, counts in by_side.items()},
                "groups": groups.to_dict("records"),
                "groups_across_roles": list(across["split_group"]),
                "leaks": [list(pair) for pair in leaks],
            }
        )
        return
    if choice.split == "official":
        names = ("training", "held out", "aside", "external", "no fold")
        rows = [(dataset, *(int(counts.get(name, 0)) for name in names)) for dataset, counts in by_side.items()]
        print_table("Cases by the sets' own splits, else by the folds", ("data set", *names), rows)
    else:
        _print_counts("Cases", "data set", folds)
        _print_counts("Cases that show a class, rarest first", "class", classes)
    if len(groups):
        columns = ("group", "fold", "training and external", "cases")
        shown = [
            (row["split_group"], row["fold"], "yes" if row["across_roles"] else "", ", ".join(row["case_ids"]))
            for row in groups.to_dict("records")
        ]
        print_table("Cases that are one scan", columns, shown)
    if leaks:
        print_table("Training cases that show a held-out scan", ("training", "held out"), leaks)
    waiting = int((side == "no fold").sum())
    console.print(
        f"{len(cases)} cases, {len(groups)} groups of twins, {len(across)} of them training and external, "
        f"{len(leaks)} leaks" + (f"; {waiting} cases have no fold yet: `ctfactory splits make`" if waiting else "")
    )


def _as_counts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {str(name): {str(column): int(n) for column, n in row.items()} for name, row in table.iterrows()}


def _print_counts(title: str, of: str, table: pd.DataFrame) -> None:
    from flows.console import print_table

    rows = [(name, *map(int, row)) for name, row in zip(table.index, table.values, strict=True)]
    print_table(title, [of, *table.columns], rows)
