"""The page and the picture of the self-training round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from datasets_registry.taxonomy import class_info

matplotlib.use("agg")

import matplotlib.pyplot as plt

ARMS = {
    "teacher": ("teacher", "#8d99ae"),
    "more steps": ("as many steps again, no pseudo-labels", "#e9c46a"),
    "accepted": ("with accepted pseudo-labels", "#2a9d8f"),
    "everything": ("with all pseudo-labels", "#e76f51"),
}


def write_report(rows: Sequence[dict[str, Any]], docs: Path) -> None:
    """Write the figures of `self_training.md` between its marks, and `pictures/self_training.png`."""
    path, picture = docs / "self_training.md", docs / "pictures" / "self_training.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(rows, picture)
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- figures -->\n")
    _, _, after = rest.partition("<!-- end of figures -->")
    figures = "\n".join(["![Figures of the round](pictures/self_training.png)", "", *table(rows)])
    path.write_text(f"{before}<!-- figures -->\n{figures}\n<!-- end of figures -->{after}", encoding="utf-8")


def mean_dsc(row: dict[str, Any], arm: str, truth: int = 0) -> float:
    """Return the mean over classes of a network; truth: 0 for what people drew, 1 for the full truth."""
    return statistics.fmean(found[truth] for found in row["dsc"][arm].values() if found[truth] is not None)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of the tables: DSC by network, and how good the pseudo-labels were."""
    lines = ["| mean DSC over classes | mean | by seed | against the teacher | full truth, mean |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for arm, (title, _) in ARMS.items():
        there = [row for row in rows if arm in row["dsc"]]
        if not there:
            continue
        values = [mean_dsc(row, arm) for row in there]
        gains = [value - mean_dsc(row, "teacher") for value, row in zip(values, there, strict=True)]
        lines.append(
            f"| {title} | {statistics.fmean(values):.3f} | {', '.join(f'{value:.3f}' for value in values)} | "
            f"{', '.join(f'{gain:+.3f}' for gain in gains)} | "
            f"{statistics.fmean(mean_dsc(row, arm, 1) for row in there):.3f} |"
        )
    lines += ["", "| pseudo-labels of the teacher, by seed | |", "| --- | --- |"]
    for title, key in (
        ("masks", "masks"),
        ("accepted", "accepted"),
        ("true DSC of the accepted", "true_dsc_accepted"),
        ("true DSC of all", "true_dsc_all"),
        ("correlation of expected and true DSC", "correlation"),
    ):
        figures = [f"{row['pseudo'][key]:.4g}" for row in rows]
        lines.append(f"| {title} | {', '.join(figures)} |")
    return lines


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the DSC of each class and network, a dot for each seed, to `path` (PNG)."""
    names = [name for name, found in rows[0]["dsc"]["teacher"].items() if found[0] is not None]
    names.sort(key=lambda name: statistics.fmean(row["dsc"]["teacher"][name][0] for row in rows))
    figure, (axes, means) = plt.subplots(1, 2, figsize=(13, 7), constrained_layout=True, width_ratios=(3, 1))
    for number, (arm, (title, colour)) in enumerate(ARMS.items()):
        shift = 0.27 - 0.18 * number
        there = [row for row in rows if arm in row["dsc"]]
        for place, name in enumerate(names if there else ()):
            values = [row["dsc"][arm][name][0] for row in there]
            axes.scatter(values, [place + shift] * len(values), s=12, color=colour, alpha=0.5, linewidths=0)
            shown = title if place == 0 else None
            axes.scatter(statistics.fmean(values), place + shift, s=36, color=colour, marker="D", label=shown)
        for row in there:
            means.scatter(number, mean_dsc(row, arm), s=30, color=colour)
            means.annotate(f" {row['seed']}", (number, mean_dsc(row, arm)), fontsize=8, va="center")
    axes.set_yticks(range(len(names)), [class_info(name).title for name in names])
    axes.set_xlabel("DSC on held-out scans, where people drew the class")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right", fontsize=9, frameon=False)
    axes.set_title("By class: mean, and each seed")
    means.set_xticks(range(len(ARMS)), [title.replace(" ", "\n") for title in ARMS], fontsize=8)
    means.set_title("Mean over classes, each seed")
    means.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
