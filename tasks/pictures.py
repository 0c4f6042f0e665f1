"""Charts of a run, drawn with matplotlib's object interface: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datasets_registry.taxonomy import all_classes, class_info

SMOOTHING_STEPS = 25


def loss_curves(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Draw total loss, BCE and Dice loss over the steps, thin as measured and thick as a running mean.

    history: one row a step with step, loss, bce and dice.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = np.array([row["step"] for row in history])
    series = {
        "loss": [row["loss"] for row in history],
        "BCE": [row["bce"] for row in history],
        "Dice loss": [row["dice"] for row in history],
    }
    for number, (name, values) in enumerate(series.items()):
        mean = pd.Series(values).rolling(SMOOTHING_STEPS, min_periods=1).mean()
        axes.plot(steps, values, color=f"C{number}", alpha=0.2, linewidth=0.8)
        axes.plot(steps, mean, color=f"C{number}", label=name)
    axes.set(xlabel="step", ylabel="loss (annotated classes only)", ylim=(0, None))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return save_figure(figure, path)


def class_scores(table: pd.DataFrame, path: Path) -> Path:
    """Draw DSC and NSD per class, one dot per data set, from `class_table`; the bar is the mean over data sets."""
    means = table.groupby("class_name")[["dsc", "nsd"]].mean()
    names = [info.name for info in all_classes() if info.name in means.index]
    figure = Figure(figsize=(9, 0.32 * len(names) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    for column, (score, title) in enumerate((("dsc", "DSC"), ("nsd", "NSD"))):
        axes = figure.add_subplot(1, 2, column + 1)
        positions = np.arange(len(names))
        colours = [class_info(name).colour for name in names]
        axes.barh(positions, means.loc[names, score], color=colours, edgecolor="0.4", linewidth=0.5, alpha=0.8)
        for position, name in zip(positions, names, strict=True):
            dots = table.loc[table["class_name"] == name, score]
            axes.plot(dots, [position] * len(dots), "k.", markersize=4)
        axes.set(xlim=(0, 1), title=title)
        axes.set_yticks(positions, [class_info(name).title for name in names] if column == 0 else [])
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    return save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, make its folder, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
