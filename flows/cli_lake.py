"""`ctfactory lake ...`: whether everything is there still, what nobody needs any more, what takes the space."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import EXIT_CASES_REFUSED, AsJson, Workspace, settings_for

if TYPE_CHECKING:
    from tasks.workspace import Workspace as OpenWorkspace

DAMAGE_COLUMNS = ("case", "file", "found", "expected")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

lake_app = typer.Typer(help="The lake's health and size.", no_args_is_help=True)


@lake_app.command()
def verify(
    read_data: Annotated[bool, typer.Option("--read-data", help="Read every byte and compare digests too.")] = False,
    sample: Annotated[
        str | None, typer.Option(help="Read this share of the files, such as 5%, another one each day.")
    ] = None,
    seed: Annotated[str | None, typer.Option(help="Chooses the files of --sample; default the date.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Compare every file of the lake with the tables; exit code 3 names what is missing or damaged.

    Lengths of all files and the digests of small ones are always compared.
    """
    from catalog.verify import verify as find_all
    from flows.console import console, print_json, print_table

    if sample is not None and read_data:
        raise ValueError("--read-data reads every file; leave --sample out")
    if sample is None and seed is not None:
        raise ValueError("--seed chooses the files of --sample; give --sample 5% too")
    share = 0.0 if sample is None else share_of(sample)
    chosen = seed or datetime.now(UTC).date().isoformat()
    opened = _opened(workspace)
    damage = find_all(opened.tables, opened.lake, read_data=read_data, sample=share, seed=chosen)
    rows = [(item.case_id, item.file, item.found, item.expected) for item in damage]
    if as_json:
        print_json([dict(zip(DAMAGE_COLUMNS, row, strict=True)) for row in rows])
    else:
        if sample is not None:
            console.print(f"read {share:.1%} of the files, chosen by --seed {chosen}", highlight=False)
        if rows:
            print_table("Damage", DAMAGE_COLUMNS, rows)
        else:
            console.print(f"{len(opened.tables.cases())} cases verified, no damage")
    if rows:
        raise typer.Exit(EXIT_CASES_REFUSED)


@lake_app.command()
def gc(
    grace: Annotated[
        str,
        typer.Option(help="Leave what is younger: 90s, 30m, 24h, 7d. Longer than a case takes from write to commit."),
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Remove what no version of the tables names: cases and annotations of killed runs, and what they left aside.

    Safe while ingests run. A second run finds nothing.
    """
    from catalog.garbage import collect_garbage
    from flows.console import console, print_json, print_table

    opened = _opened(workspace)
    least = duration_of(grace)
    if not dry_run and opened.tables.cases(history=True).empty:
        there = collect_garbage(opened.tables, opened.lake, least, dry_run=True)
        if there:
            raise ValueError(
                f"the tables in {opened.lake.location} hold no case, but the lake holds {len(there)} orphans, perhaps "
                "because its tables are elsewhere; restore them, or remove the folder `volumes` yourself"
            )
    orphans = collect_garbage(opened.tables, opened.lake, least, dry_run=dry_run)
    total = sum(orphan.bytes for orphan in orphans)
    if as_json:
        print_json({"removed": not dry_run, "bytes": total, "orphans": [asdict(orphan) for orphan in orphans]})
        return
    if orphans:
        rows = [(orphan.kind, orphan.path, len(orphan.names), orphan.bytes) for orphan in orphans]
        print_table("Orphans", ("kind", "path", "files", "bytes"), rows)
    told = "would be removed" if dry_run else "removed"
    console.print(f"{len(orphans)} orphans {told}, {total} bytes", highlight=False)


@lake_app.command()
def stats(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show cases, versions, arrays, files and bytes of each data set by kind, and how far images are packed."""
    from catalog.lake_stats import KINDS, lake_stats
    from flows.console import console, print_json, print_table

    opened = _opened(workspace)
    found = lake_stats(opened.tables, opened.lake)
    if as_json:
        print_json({"lake": str(opened.lake.location), **asdict(found)})
        return
    print_table(
        "Lake",
        ("data set", "cases", "versions", "arrays", "files", "image ratio"),
        [
            (item.dataset, item.cases, item.versions, item.arrays, sum(item.files.values()), item.image_ratio)
            for item in found.datasets
        ],
    )
    print_table(
        "MB",
        ("data set", *KINDS),
        [(item.dataset, *(item.bytes[kind] / 1e6 for kind in KINDS)) for item in found.datasets],
    )
    total = sum(sum(item.bytes.values()) for item in found.datasets)
    console.print(
        f"{opened.lake.location}: {total / 1e6:.3f} MB in volumes, {found.table_bytes / 1e6:.3f} MB in "
        f"{found.table_files} files of tables",
        soft_wrap=True,
        highlight=False,
    )


def share_of(text: str) -> float:
    """Return the share that `5%` or `0.05` stands for, above 0 and at most 1."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise ValueError(f"--sample {text}: expected a share above 0 and up to 100%, such as 5% or 0.05")
    return share


def duration_of(text: str) -> timedelta:
    """Return the time that `90s`, `30m`, `24h` or `7d` stands for."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise ValueError(f"--grace {text}: expected a number and one of s, m, h, d, such as 24h")
    return timedelta(**{UNITS[found[2]]: float(found[1])})


def _opened(workspace: Path | None) -> OpenWorkspace:
    from tasks.workspace import existing_workspace

    return existing_workspace(settings_for(workspace))
