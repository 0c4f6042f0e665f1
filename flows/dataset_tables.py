"""Tables of `ctfactory datasets list` and `ctfactory datasets verify`, fitted to the width of the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from datasets_registry.card_audit import Finding
from datasets_registry.card_summary import Coverage, Summary
from datasets_registry.raw_audit import RawFinding
from datasets_registry.taxonomy import ClassInfo, all_classes

SECTIONS = {"train": "For training", "external": "External cohorts"}
ACCESS = {"registration": "register", "application": "apply"}
USE = {False: Text("yes", "green"), True: Text("no", "yellow"), None: Text("?", "red")}
"""Whether a commercial profile may use the data, by the card's non_commercial; not stated is no permission."""

MARKS: dict[Coverage, Text] = {
    "every case": Text("●", "green"),
    "some cases": Text("◐", "yellow"),
    "variant": Text("○", "cyan"),
}
LEVEL_STYLE = {"seen": "green", "inferred": "yellow", "recalled": "red"}
"""Colour of how well a fact is known."""
NAMES_FIT = 120
"""Columns from which on the list names the overlapping data sets instead of counting them."""
GRID_COLUMN = 3
"""Characters of one class in the grid."""


def dataset_list(summaries: Sequence[Summary], width: int) -> RenderableType:
    """Return the table of data sets, one section a role; width: characters of the terminal."""
    table = _table()
    named = width >= NAMES_FIT
    for heading in ("data set", "access", "licence", "com."):
        table.add_column(heading, no_wrap=True)
    table.add_column("cases", justify="right", no_wrap=True)
    table.add_column("classes", ratio=2)
    if named:
        table.add_column("overlaps", ratio=3)
    else:
        table.add_column("with", justify="right", no_wrap=True)
    table.add_column("open", justify="right", no_wrap=True)
    for role, title in SECTIONS.items():
        table.add_row(Text(title, "bold cyan"))
        for line in summaries:
            if line.role == role:
                table.add_row(
                    f"  {line.id}",
                    ACCESS.get(line.access, line.access),
                    _licence(line.licence, named),
                    USE[line.non_commercial],
                    "–" if line.labelled is None else str(line.labelled),
                    line.class_ranges or "–",
                    ", ".join(line.overlaps) if named else str(len(line.overlaps) or "–"),
                    str(line.unverified or "–"),
                )
    legend = Text(
        "com.: commercial use allowed; cases: labelled ones; classes: indices, named by --wide; "
        f"{'overlaps' if named else 'with'}: data sets that share scans; open: facts to verify (datasets verify)",
        "dim",
    )
    return Group(table, Text(), legend)


def _licence(spdx: str | None, with_version: bool) -> Text:
    if spdx is None:
        return Text("not stated", "red")
    return Text(spdx if with_version else re.sub(r"^(CC-.*)-\d\.\d$", r"\1", spdx))


def class_grid(summaries: Sequence[Summary], width: int) -> RenderableType:
    """Return data sets x classes, in as many blocks side by side of the index as the terminal needs, and a legend."""
    classes = all_classes()
    name_width = max(len(line.id) for line in summaries) + 1
    per_block = max(4, (width - name_width) // GRID_COLUMN)
    blocks = -(-len(classes) // per_block)
    per_block = -(-len(classes) // blocks)  # blocks of one size
    parts: list[RenderableType] = []
    for first in range(0, len(classes), per_block):
        parts += [_grid_block(summaries, classes[first : first + per_block]), Text()]
    meaning = ((MARKS[kind], kind) for kind in MARKS)
    legend = Text("  ").join(
        [Text.assemble(mark, f" {'other label variant' if kind == 'variant' else kind}") for mark, kind in meaning]
    )
    return Group(*parts, legend, Text(), _class_names(classes, width))


def _grid_block(summaries: Sequence[Summary], classes: Sequence[ClassInfo]) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("data set", no_wrap=True)
    for info in classes:
        table.add_column(str(info.index), justify="right", width=GRID_COLUMN - 1, no_wrap=True)
    for line in summaries:
        marks = (line.coverage.get(info.name) for info in classes)
        table.add_row(line.id, *[Text("·", "dim") if mark is None else MARKS[mark] for mark in marks])
    return table


def _class_names(classes: Sequence[ClassInfo], width: int) -> Table:
    columns = max(1, width // (max(len(info.title) for info in classes) + 5))
    table = Table.grid(padding=(0, 2, 0, 0))
    rows = -(-len(classes) // columns)
    for row in range(rows):
        cells = [classes[row + rows * column] for column in range(columns) if row + rows * column < len(classes)]
        table.add_row(*[Text.assemble((f"{info.index:>2} ", "bold"), info.title) for info in cells])
    return table


def findings_table(findings: Iterable[Finding]) -> RenderableType:
    """Return findings under the name of their card; one remark about many files or data sets is one line."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for card, group in groupby(findings, key=lambda finding: finding.card):
        grid.add_row(Text(card, "bold"))
        about: dict[tuple[str, str, str], list[str]] = {}
        for one in group:
            field = one.field.partition(".")[0] if one.subject else one.field
            about.setdefault((field, one.text, one.level), []).append(one.subject)
        for (field, text, level), subjects in about.items():
            told = f"{', '.join(subjects)}: {text}" if any(subjects) else text
            mark = (f" [{level}]", LEVEL_STYLE.get(level, "dim")) if level else ""
            grid.add_row(f"  {field}", Text.assemble(told, mark))
    return grid


def coverage_table(sources: dict[str, list[str]]) -> RenderableType:
    """Return the classes that few data sets annotate, with those that do."""
    table = _table()
    table.add_column("class", no_wrap=True)
    table.add_column("annotated only by", overflow="fold")
    for name, cards in sources.items():
        if len(cards) <= 2:
            table.add_row(name, ", ".join(cards) or Text("none", "red"))
    return table


def raw_table(findings: Iterable[RawFinding]) -> RenderableType:
    """Return what differs between the raw zone and the cards."""
    table = _table()
    for heading in ("card", "file", "state", "found", "expected"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.card, finding.file, finding.state, finding.found, finding.expected)
    return table


def _table() -> Table:
    return Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
