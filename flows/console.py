"""What the command shows: progress bars on the terminal, tables, and JSON where a script asks for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Table

from tasks.notices import told
from tasks.progress import listening

console = Console()
errors = Console(stderr=True)

LINE_EVERY_S = 10.0
"""Seconds between the lines on one kind of work where there is no terminal to draw a bar on."""


@contextmanager
def progress_bars(*, enabled: bool = True) -> Iterator[None]:
    """Show one bar for each kind of work reported inside the block; without a terminal, a line now and then."""
    if not enabled:
        yield
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeftColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        bars: dict[str, TaskID] = {}
        lines: dict[str, float] = {}

        def show(what: str, done: int, total: int, note: str) -> None:
            if what not in bars or (done == 0 and progress.tasks[bars[what]].finished):
                bars[what] = progress.add_task(what, total=total, note=note)
            progress.update(bars[what], completed=done, total=total, note=note)
            if errors.is_terminal:
                return
            now = time.monotonic()
            if done == total or now - lines.setdefault(what, now) >= LINE_EVERY_S:
                lines[what] = now
                errors.print(f"{what}: {done}/{total} {note}".rstrip(), soft_wrap=True, highlight=False)

        with listening(show):
            yield


@contextmanager
def notices() -> Iterator[None]:
    """Print what steps tell a person, such as a licence, on standard error, with JSON on standard output too."""
    with told(lambda text: errors.print(text, style="yellow", soft_wrap=True, highlight=False)):
        yield


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers are right-aligned, None and NaN show as a dash."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")  # nothing is cut off
    for row in rows:
        table.add_row(*[_cell(value) for value in row])
    console.print(table)
    console.print()


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print `value` as JSON on standard output, nothing else."""
    print(json.dumps(value, indent=2, default=str))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
