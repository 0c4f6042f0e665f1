"""Charts of an evaluation: spread per class, ROC of lesions, DSC against compute, two models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datasets_registry.taxonomy import all_classes, class_info
from tasks.detection import roc_curve
from tasks.efficiency import Efficiency
from tasks.pictures import save_figure
from tasks.workspace import row_dicts


def class_boxes(scores: pd.DataFrame, path: Path) -> Path:
    """Draw the spread of DSC and NSD over cases, one box a class (median, quartiles, 1.5 IQR) and every case a dot.

    A class's name says how many cases were scored, and how many were not for truth and prediction were both empty.
    """
    drawn = scores[~scores["known_absent"].astype(bool)]
    there = set(drawn["class_name"].unique())
    names = [info.name for info in all_classes() if info.name in there]
    figure = Figure(figsize=(10, 0.36 * len(names) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    for column, (score, title) in enumerate((("dsc", "DSC"), ("nsd", "NSD"))):
        axes = figure.add_subplot(1, 2, column + 1)
        values = [drawn.loc[drawn["class_name"] == name, score].dropna().to_numpy(dtype=float) for name in names]
        positions = np.arange(len(names))
        boxes = axes.boxplot(
            values,
            positions=positions,
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for box, name in zip(boxes["boxes"], names, strict=True):
            box.set(facecolor=class_info(name).colour, alpha=0.7, linewidth=0.7)
        for position, cases in zip(positions, values, strict=True):
            jitter = position + 0.22 * np.sin(np.arange(len(cases)) * 2.4)
            axes.plot(cases, jitter, "k.", markersize=3, alpha=0.5)
        axes.set(xlim=(-0.02, 1.02), title=title)
        axes.set_yticks(positions, [_counted(drawn, name) for name in names] if column == 0 else [])
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    return save_figure(figure, path)


def _counted(drawn: pd.DataFrame, name: str) -> str:
    values = drawn.loc[drawn["class_name"] == name, "dsc"]
    empty = int(values.isna().sum())
    return f"{class_info(name).title} ({values.count()}{f', {empty} empty' if empty else ''})"


def roc_chart(scores: pd.DataFrame, detection: pd.DataFrame, path: Path) -> Path | None:
    """Draw the ROC over patients of each lesion class with positives and negatives; None where no class has both.

    The dot is the sensitivity and specificity at the volume limit of the settings.
    """
    both = detection[(detection["positives"] > 0) & (detection["negatives"] > 0)]
    if both.empty:
        return None
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row in row_dicts(both):
        part = scores[scores["class_name"] == row["class_name"]]
        false, found = roc_curve(part["lesion_score"].to_numpy(dtype=float), (part["truth_ml"] > 0).to_numpy())
        info = class_info(str(row["class_name"]))
        label = f"{info.title}, AUC {row['auc']:.2f} ({row['positives']} + {row['negatives']})"
        axes.plot(false, found, color=info.colour, linewidth=2, label=label)
        axes.plot(1 - row["specificity"], row["sensitivity"], "o", color=info.colour, markeredgecolor="0.2")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="1 - specificity", ylabel="sensitivity (patients)")
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)
    return save_figure(figure, path)


def efficiency_chart(found: Efficiency, organ_dsc: float, others: pd.DataFrame, name: str, path: Path) -> Path:
    """Draw mean organ DSC against TFLOP a scan: this model, others on the same cases, and the cost of single models.

    others: model, mean_organ_dsc, tflops_per_scan.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row in row_dicts(others[others["model"] != name]):
        axes.plot(row["tflops_per_scan"], row["mean_organ_dsc"], "o", color="0.55")
        _name(axes, str(row["model"]), (row["tflops_per_scan"], row["mean_organ_dsc"]), "0.4")
    axes.plot(found.tflops_per_scan, organ_dsc, "o", markersize=9, color="C0")
    _name(axes, f"{name}, one pass", (found.tflops_per_scan, organ_dsc), "C0")
    if found.data_sets > 1:
        cost = found.tflops_per_scan * found.data_sets
        axes.axvline(cost, color="C3", linestyle="--", linewidth=1)
        label = f"{found.data_sets} models,\none for each data set"
        axes.annotate(
            label, (cost, 0.05), xytext=(-4, 0), textcoords="offset points", ha="right", fontsize=8, color="C3"
        )
    axes.set(xscale="log", ylim=(0, 1), xlabel="TFLOP a scan (median)", ylabel="mean organ DSC")
    axes.grid(alpha=0.3, which="both")
    return save_figure(figure, path)


def _name(axes: Any, text: str, at: tuple[float, float], colour: str) -> None:
    axes.annotate(text, at, xytext=(8, 4), textcoords="offset points", fontsize=8, color=colour)


def comparison_chart(table: pd.DataFrame, a: str, b: str, path: Path) -> Path:
    """Draw the difference in DSC of each class with its 95 % interval; filled where Holm's p is below 0.05."""
    rows = row_dicts(table)
    figure = Figure(figsize=(7.5, 0.3 * len(table) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for position, row in enumerate(rows):
        colour = class_info(str(row["class_name"])).colour
        axes.plot([_or_nan(row["low"]), _or_nan(row["high"])], [position, position], color=colour, linewidth=2)
        face = colour if _or_nan(row["p_holm"]) < 0.05 else "white"
        axes.plot(_or_nan(row["difference"]), position, "o", markeredgecolor="0.3", markerfacecolor=face)
    axes.axvline(0, color="0.4", linewidth=0.8)
    names = [f"{class_info(row['class_name']).title} ({row['scored']})" for row in rows]
    axes.set_yticks(range(len(table)), names)
    axes.invert_yaxis()
    axes.set(xlabel=f"DSC of {a} less that of {b}")
    axes.grid(axis="x", alpha=0.3)
    return save_figure(figure, path)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
