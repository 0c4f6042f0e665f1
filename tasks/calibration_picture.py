"""The reliability plot of a calibration: expected DSC against real DSC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datasets_registry.taxonomy import all_classes

BINS = 8


def reliability_table(pairs: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Return means of expected and real DSC, and the count, of groups of about equal size, by rising expected DSC."""
    order = pairs.sort_values(["expected", "dsc"], ignore_index=True)
    group = np.arange(len(order)) * min(bins, len(order)) // max(1, len(order))
    table = order.groupby(group).agg(expected=("expected", "mean"), real=("dsc", "mean"), masks=("dsc", "size"))
    return table.reset_index(drop=True)


def reliability_plot(pairs: pd.DataFrame, path: Path, title: str) -> Path:
    """Draw each mask as a dot in its class's colour and the means of groups of equal size as a line; empty masks not.

    pairs: of `calibration.cross_validated`.
    """
    found = pairs[~pairs["empty"]]
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for info in all_classes():
        own = found[found["class_name"] == info.name]
        if len(own):
            axes.plot(own["expected"], own["dsc"], ".", color=info.colour, markeredgecolor="0.4", label=info.title)
    means = reliability_table(found)
    axes.plot(means["expected"], means["real"], "ko-", markersize=5, linewidth=1.2, label="means of groups")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="expected DSC", ylabel="real DSC", title=title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=6, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
