"""The picture of the learning study: one panel a claim, a dot for each seed."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.learning_claims import LARGEST_LOSS, Rows, class_dsc, one_for_all, rarest, tail_changes, title

matplotlib.use("agg")

import matplotlib.pyplot as plt

COLOURS = {"full": "#264653", "partial": "#2a9d8f", "naive": "#e76f51", "rare": "#e76f51", "other": "#8d99ae"}


def draw(rows: Rows, path: Path) -> None:
    """Draw what is there of the four claims to `path` (PNG); a claim without rows leaves an empty panel."""
    figure, panels = plt.subplots(2, 2, figsize=(13, 11), constrained_layout=True)
    _partial_labels(panels[0][0], rows)
    _one_for_all(panels[0][1], rows)
    _later_classes(panels[1][0], rows)
    _long_tail(panels[1][1], rows)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _partial_labels(axes: Any, rows: Rows) -> None:
    axes.set_title("Partial labels: DSC by class, mean and each seed")
    arms = {"full": "full truth", "partial": "partial labels", "naive": "unlabelled = background"}
    seeds = rows.seeds(*arms)
    if not seeds:
        return
    names = list(rows.row("partial", seeds[0])["dsc"])
    names.sort(key=lambda name: statistics.fmean(class_dsc(rows.row("full", seed)["dsc"], name) for seed in seeds))
    for shift, (arm, label) in zip((0.22, 0.0, -0.22), arms.items(), strict=True):
        for place, name in enumerate(names):
            values = [class_dsc(rows.row(arm, seed)["dsc"], name) for seed in seeds]
            axes.scatter(values, [place + shift] * len(values), s=12, color=COLOURS[arm], alpha=0.5, linewidths=0)
            shown = label if place == 0 else None
            axes.scatter(statistics.fmean(values), place + shift, s=42, color=COLOURS[arm], marker="D", label=shown)
    axes.set_yticks(range(len(names)), [title(name) for name in names])
    axes.set_xlabel("DSC on held-out scans of all sets")
    axes.set_xlim(-0.03, 1.0)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.07), ncols=3, fontsize=9, frameon=False)


def _one_for_all(axes: Any, rows: Rows) -> None:
    axes.set_title("One network for all against one for each set")
    figures = {figure.what: figure for figure in one_for_all(rows).figures}
    bars = [
        ("mean DSC, one network for all", "one for all", COLOURS["partial"]),
        ("mean DSC, one network for each set", "one for each", COLOURS["other"]),
    ]
    bars = [bar for bar in bars if bar[0] in figures]
    for place, (what, label, colour) in enumerate(bars):
        _bar(axes, place, figures[what].values, colour, f"{label}\n{figures[what].mean:.3f}")
    axes.set_ylabel("mean DSC over the same classes and scans")
    axes.set_ylim(0, 1.05)
    times = [
        ("seconds a scan, one network", "one for all", COLOURS["partial"]),
        ("seconds a scan, all the others", "all the others", COLOURS["other"]),
    ]
    times = [bar for bar in times if bar[0] in figures]
    if times:
        right = axes.twinx()
        for place, (what, label, colour) in enumerate(times, start=3):
            seconds = figures[what].mean
            _bar(right, place, figures[what].values, colour, f"{label}\n{seconds * 1000:.0f} ms")
        right.set_ylabel("seconds of inference a scan")
        right.set_ylim(0, 1.3 * max(max(figures[what].values) for what, *_ in times))
    axes.set_xticks([])  # each bar says what it is
    axes.set_xlim(-0.7, 4.7 if times else 1.7)


def _bar(axes: Any, place: float, values: tuple[float, ...], colour: str, label: str) -> None:
    mean = statistics.fmean(values)
    axes.bar(place, mean, color=colour, width=0.8)
    axes.scatter([place] * len(values), values, s=18, color="black", zorder=3)
    axes.annotate(
        label, (place, max(values)), ha="center", va="bottom", xytext=(0, 6), textcoords="offset points", fontsize=9
    )


def _later_classes(axes: Any, rows: Rows) -> None:
    axes.set_title("Classes added later: DSC before and after, each seed")
    seeds = rows.seeds("extended")
    for seed in seeds:
        row = rows.row("extended", seed)
        after = row["extension"]["dsc"]
        old = list(row["dsc"])
        axes.scatter(
            [class_dsc(row["dsc"], name) for name in old],
            [class_dsc(after, name) for name in old],
            s=22,
            color=COLOURS["other"],
            label="old classes" if seed == seeds[0] else None,
        )
        for number, name in enumerate(row["extension"]["classes"]):
            axes.scatter(
                0.02 * number,
                class_dsc(after, name),
                s=60,
                marker="s^"[number % 2],
                color=COLOURS["partial" if number else "naive"],
                label=f"new: {title(name)}" if seed == seeds[0] else None,
            )
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.7)
    axes.axhline(0.6, color="black", linewidth=0.7, linestyle=":")
    axes.set_xlabel("before (0: not known)")
    axes.set_ylabel("after")
    axes.set_xlim(-0.05, 1.0)
    axes.set_ylim(-0.05, 1.0)
    axes.grid(alpha=0.3)
    if seeds:
        axes.legend(loc="lower right", fontsize=9)


def _long_tail(axes: Any, rows: Rows) -> None:
    axes.set_title("Long tail: change of DSC by weighted sampling, mean and each seed")
    seeds = rows.seeds("tail as it comes", "tail weighted")
    if not seeds:
        return
    changes = tail_changes(rows, "tail weighted", seeds)
    row = rows.row("tail weighted", seeds[0])
    names = [name for name in rarest(row, len(row["annotated_cases"])) if name in changes][::-1]
    rare = rarest(row)
    for place, name in enumerate(names):
        colour = COLOURS["rare" if name in rare else "other"]
        axes.barh(place, statistics.fmean(changes[name]), color=colour)
        axes.scatter(changes[name], [place] * len(seeds), s=12, color="black", zorder=3)
    axes.axvline(-LARGEST_LOSS, color="black", linewidth=0.7, linestyle=":")
    axes.axvline(0, color="black", linewidth=0.7)
    axes.set_yticks(range(len(names)), [f"{title(name)} ({row['annotated_cases'][name]})" for name in names])
    axes.set_xlabel("weighted - as it comes; in brackets: training scans that annotate the class")
    axes.grid(axis="x", alpha=0.3)
