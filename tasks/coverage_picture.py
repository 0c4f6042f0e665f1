"""The long tail of classes, drawn: how many cases show each, from the commonest to those nobody annotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datasets_registry.taxonomy import class_info


def long_tail(matrices: dict[str, pd.DataFrame], path: Path) -> Path:
    """Draw the classes by number of labelled cases, and their total volume beside it; return `path`.

    matrices: class x data set, as `catalog.queries.coverages` returns them. Pale: cases where the class was looked
    for; full: where it is. The scales are logarithmic from 1 on; a class without a case says so. ValueError unless
    `path` ends in .png.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"picture {path}: found suffix {path.suffix or 'none'!r}, expected .png")
    totals = pd.DataFrame({name: matrix.sum(axis=1) for name, matrix in matrices.items()})
    totals = totals.sort_values(["cases", "present", "ml"], ascending=False, kind="stable")
    names = [str(name) for name in totals.index]
    figure = Figure(figsize=(10, 0.28 * len(names) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    cases, volume = figure.subplots(1, 2, width_ratios=(3, 2))
    rows, colours = np.arange(len(names)), [class_info(name).colour for name in names]
    cases.barh(rows, totals["cases"], color=colours, alpha=0.3)
    cases.barh(rows, totals["present"], color=colours, edgecolor="0.4", linewidth=0.5)
    volume.barh(rows, totals["ml"], color=colours, edgecolor="0.4", linewidth=0.5)
    for row, count in enumerate(totals["cases"]):
        cases.annotate(f" {count}" if count else " none", (count, row), va="center", fontsize=7)
    _dress(cases, "labelled cases (full: the class is there)", [class_info(name).title for name in names])
    _dress(volume, "labelled volume, ml", [])
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    figure.savefig(aside, dpi=110, format="png")
    aside.replace(path)
    return path


def _dress(axes: Axes, label: str, titles: list[str]) -> None:
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(label)
    axes.set_yticks(range(len(titles)), titles)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
