"""Pages and tables of `ctfactory catalog`, fitted to the width of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from catalog.reports import CaseHistory, CaseReport
from catalog.splits import fold_name
from datasets_registry.taxonomy import class_info

KEY_SHOWN = 12
"""Characters of a hash shown on a page, as in the name of a case's folder; JSON has all."""

STATE_STYLE = {"annotated": "green", "pseudo": "cyan"}
COMMERCIAL = {True: "no commercial use", False: "commercial use allowed", None: "commercial use not known"}
TOTALS = {"cases": "cases", "present": "with it", "voxels": "voxels", "ml": "ml"}
COUNTED = {
    "cases": "cases where the class was looked for, there or not",
    "present": "cases that show the class",
    "voxels": "labelled voxels of the lake's grid",
    "ml": "labelled ml",
}


def case_page(report: CaseReport) -> RenderableType:
    """Return the page of one case, for a terminal of any width."""
    case = report.case
    parts: list[RenderableType] = [Text(case["case_id"], "bold"), _identity(report)]
    for title, content in (
        ("Geometry", [_geometry(case)]),
        ("Flags", [Text(flag) for flag in case["flags"]]),
        ("Steps", [_steps(case["steps"])] if case["steps"] else []),
        ("Labels", list(_labels(report))),
    ):
        if content:
            parts += [Text(), Rule(title, align="left", style="dim"), Padding(Group(*content), (0, 0, 0, 2))]
    return Group(*parts)


def _identity(report: CaseReport) -> Table:
    case, others = report.case, [name for name in report.group if name != report.case["case_id"]]
    fold = fold_name(case["fold"]) if case["role"] == "train" else "never in training"
    withdrawn = [("withdrawn", f"{_when(case['withdrawn_at'])}: {case['withdrawn']}")] if case["withdrawn"] else []
    return _pairs(
        *withdrawn,
        ("data set", f"{case['dataset']} ({case['role']}), {case['source_name'] or 'source not known'}"),
        ("licence", f"{case['licence'] or 'not known'}; {COMMERCIAL[case['non_commercial']]}"),
        ("split", f"{fold}, group {case['split_group']}"),
        ("same group", ", ".join(others) or "no other case"),
        ("version", f"{case['revision']} of {report.versions}, committed {_when(case['committed_at'])}"),
        ("ingest key", _short(case["ingest_key"])),
        ("made by", f"card {_short(case['card_digest'])}, harmoniser {case['harmoniser_version']}"),
        ("content", f"voxels {_short(case['content_sha256'])}, raw files {_short(case['raw_sha256'])}"),
        ("flow run", case["flow_run_id"] or "none"),
        ("folder", case["path"]),
        ("tumour-free", ", ".join(case["tumour_free"]) or "not stated"),
    )


def _geometry(case: Mapping[str, Any]) -> Table:
    spacing = " x ".join(f"{mm:g}" for mm in case["spacing_mm"])
    shape = (case["shape_x"], case["shape_y"], case["shape_z"])
    extent = " x ".join(f"{n * mm:.0f}" for n, mm in zip(shape, case["spacing_mm"], strict=True))
    shape_text, original = (" x ".join(map(str, numbers)) for numbers in (shape, case["original_shape"]))
    return _pairs(
        ("lake grid", f"{shape_text} voxels of {spacing} mm (X Y Z, RAS), {extent} mm"),
        ("raw scan", f"{original} voxels, axes to {case['original_orientation']}"),
        (
            "HU",
            f"{case['hu_min']:.0f} to {case['hu_max']:.0f}, mean {case['hu_mean']:.0f}, "
            f"1 % {case['hu_p01']:.0f}, median {case['hu_p50']:.0f}, 99 % {case['hu_p99']:.0f}",
        ),
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for step in steps:
        name = step.get("step") or step.get("name") or "step"
        told = {key: value for key, value in step.items() if key not in ("step", "name", "of")}
        of = f" (of the {step['of']})" if "of" in step else ""
        grid.add_row(f"{name}{of}", Text(", ".join(f"{key} {value}" for key, value in told.items()), "dim"))
    return grid


def _labels(report: CaseReport) -> Iterator[RenderableType]:
    if report.labels:
        headings = ("class", "state", "annotation", "ml", "HU", "parts", "score", "made by", "stands")
        table = _table(*headings, right=("ml", "HU", "parts", "score"))
        for row in report.labels:
            absent = row["voxels"] == 0
            table.add_row(
                class_info(row["class_name"]).title,
                Text(row["state"], STATE_STYLE.get(row["state"], "")),
                row["annotation"],
                Text("absent", "dim") if absent else f"{row['ml']:.1f}",
                _number(row["hu_mean"], 0),
                "" if absent else f"{row['components']}{' at the edge' if row['touches_border'] else ''}",
                _number(row["quality_score"], 2),
                _maker(row),
                _stands(row),
                style="" if row["counts"] else "dim",
            )
        yield table
        yield Text()
    names = ", ".join(class_info(name).title for name in report.unlabelled)
    yield Text.assemble(("no label counts for: ", "dim"), names or "no class")


def _stands(row: Mapping[str, Any]) -> Text:
    """Return what became of a label: the one that counts, or why not."""
    words = [str(row["verdict"])] if row["verdict"] else []
    if row["retracted"]:
        words.append("retracted")
    elif row["counts"]:
        words.insert(0, "counts")
    elif row["decision"] == "reject" and not words:
        words.append("rejected by the factory")
    return Text(", ".join(words), "green" if row["counts"] else "dim")


def _maker(row: Mapping[str, Any]) -> str:
    if row["model_name"] is None:
        return str(row["label_origin"])
    version = "" if row["model_version"] is None else f" {row['model_version']}"
    return f"{row['model_name']}{version}"


def coverage_table(matrices: Mapping[str, pd.DataFrame], value: str, width: int) -> RenderableType:
    """Return totals of each class, then `matrices[value]` by data set; as many blocks as `width` characters need."""
    matrix = matrices[value]
    titles = [class_info(str(name)).title for name in matrix.index]
    columns = {
        **{title: matrices[name].sum(axis=1).tolist() for name, title in TOTALS.items()},
        **{str(name): matrix[name].tolist() for name in matrix.columns},
    }
    waiting, parts = list(columns), list[RenderableType]()
    while waiting:
        block: list[str] = []
        room = width - max(map(len, titles))
        while waiting and (not block or room > len(_widest(waiting[0], columns))):
            room -= len(_widest(waiting[0], columns)) + 1
            block.append(waiting.pop(0))
        table = _table("class", *block, right=block)
        for row, title in enumerate(titles):
            table.add_row(title, *[_amount(columns[name][row]) for name in block])
        parts += [table, Text()]
    return Group(*parts, Text(f"totals first; in each data set: {COUNTED[value]}", "dim"))


def _widest(name: str, columns: Mapping[str, Sequence[float]]) -> str:
    return max(name, *(str(_amount(amount)) for amount in columns[name]), key=len)


def history_page(history: CaseHistory) -> RenderableType:
    """Return the versions of a case, the newest last, each with its annotations below."""
    versions = _table("version", "committed", "ingest key", "card", "harmoniser", "changed", "superseded by")
    for row in history.versions:
        after = row["superseded_by"]
        versions.add_row(
            str(row["revision"]),
            _when(row["committed_at"]),
            _short(row["ingest_key"]),
            _short(row["card_digest"]),
            row["harmoniser_version"],
            ", ".join(row["changed"]) or ("first" if row["revision"] == 1 else ""),
            Text("current", "green") if after is None else f"version {after}",
        )
    headings = ("version", "annotation", "state", "classes", "decided", "committed", "made by")
    annotations = _table(*headings, right=("classes",))
    for row in history.annotations:
        made_by = " ".join(filter(None, (row["model_name"], row["model_version"]))) or "human"
        annotations.add_row(
            str(row["revision"]),
            row["annotation"],
            row["state"],
            str(row["classes"]),
            ", ".join(f"{row[word]} {word}" for word in ("retracted", "accepted", "rejected") if row[word]),
            _when(row["committed_at"]),
            made_by,
        )
    below: list[RenderableType] = [annotations] if history.annotations else [Text("no annotation", "dim")]
    if history.events:
        below += [Text(), _events(history.events)]
    return Group(Text(history.case_id, "bold"), Text(), versions, Text(), *below)


def _events(events: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("decided", "event", "class", "annotation", "who", "why", "run")
    for row in events:
        table.add_row(
            _when(row["committed_at"]),
            row["event"],
            row["class_name"],
            row["annotation"],
            row["who"],
            row["why"],
            row["run_id"] or "",
        )
    return table


def commits_table(commits: Sequence[Mapping[str, Any]], limit: int) -> RenderableType:
    """Return the newest `limit` commits of a table, and how many there are."""
    table = _table("version", "committed", "operation", "rows", right=("version", "rows"))
    for entry in commits[:limit]:
        rows = _amount(entry["rows"])
        table.add_row(str(entry["version"]), _when(entry["committed_at"].isoformat()), entry["operation"], rows)
    return Group(table, Text(f"{min(limit, len(commits))} of {len(commits)} commits", "dim"))


def rows_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> RenderableType:
    """Return the answer to a query; numbers are right-aligned, null is a dash.

    Rows wider than `width` characters are written one value a line, a rule between them.
    """
    texts = [["–" if cell is None else _text(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *texts, strict=True)]
    if rows and sum(widths) + len(widths) > width:
        records = (_pairs(*zip(columns, row, strict=True)) for row in texts)
        return Group(*(part for record in records for part in (Rule(style="dim"), record)))
    numeric = [
        name
        for number, name in enumerate(columns)
        if rows and all(isinstance(row[number], int | float | None) for row in rows)
    ]
    table = _table(*columns, right=numeric)
    for row in texts:
        table.add_row(*map(Text, row))
    return table


def _text(cell: Any) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _amount(amount: float) -> RenderableType:
    if amount == 0:
        return Text("·", "dim")
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.1f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _when(text: str) -> str:
    return text[:19].replace("T", " ")


def _short(digest: str) -> str:
    return digest[:KEY_SHOWN]


def _pairs(*pairs: tuple[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, Text(value))
    return grid


def _table(*headings: str, right: Sequence[str] = ()) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(Text(heading), justify="right" if heading in right else "left", overflow="fold")
    return table
