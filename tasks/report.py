"""One self-contained HTML page of a run: figures, tables and pictures, no file beside it and no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from tasks.prefect_task import as_task


@dataclass(frozen=True)
class Picture:
    """A PNG file and the sentence under it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Link:
    """Another page, by its path from this one."""

    path: str
    text: str


@dataclass(frozen=True)
class Section:
    """One heading with a paragraph, links, tables (title, rows) and pictures, in this order."""

    title: str
    text: str = ""
    tables: tuple[tuple[str, pd.DataFrame], ...] = ()
    pictures: tuple[Picture, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a run has to say: headline figures first, then sections."""

    title: str
    figures: dict[str, str]
    sections: tuple[Section, ...]
    facts: dict[str, str] = field(default_factory=dict)


def write_report(report: Report, path: Path) -> Path:
    """Write `report` to `path` as one HTML file with its pictures inside, and return the path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data_url"] = _data_url
    environment.filters["cell"] = format_cell
    html = environment.get_template("report.html").render(report=report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def format_cell(value: Any) -> str:
    """Return a table cell as text: three decimals, and a dash for what was not measured."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as Markdown, for a Prefect artifact."""
    header = [str(column) for column in table.columns]
    lines: list[Sequence[str]] = [header, ["---"] * len(header)]
    lines += [[format_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


write_report_task = as_task(write_report, "write-report")
