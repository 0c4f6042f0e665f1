"""Distributions of one class as inline SVG: pseudo-labels by decision, before human labels in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FLOOR = 260, 90, 72
"""Size of a plot, and the height of its axis from the top; below it stand the ends of the scale."""

BINS = 24
DECISION_COLOURS = {"accept": "#2f9e5b", "review": "#e0a320", "reject": "#cf3b3b", "undecided": "#7d8894"}


def distribution_svg(
    title: str,
    human: Sequence[float],
    pseudo: Mapping[str, Sequence[float]],
    *,
    unit: str = "",
    logarithmic: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """Return a histogram as SVG: `human` in grey, `pseudo` by decision stacked in colour, each to its own height.

    logarithmic: for volumes; what is not above 0 is then left out. limits: of the axis, else of the values. The text
    under it says how many values each has; with no value at all it says so.
    """
    values = {name: _usable(given, logarithmic) for name, given in pseudo.items()}
    people = _usable(human, logarithmic)
    every = np.concatenate([people, *values.values()])
    counts = f"{sum(map(len, values.values()))} pseudo, {len(people)} human"
    heading = f'<text x="4" y="11" class="t">{title}</text><text x="{WIDTH - 4}" y="11" class="n">{counts}</text>'
    if not len(every):
        return _svg(heading + f'<text x="{WIDTH / 2}" y="46" class="e">no value</text>', f"{title}: {counts}")
    low, high = _ends(every, limits, logarithmic)
    edges = np.linspace(low, high, BINS + 1)
    body = _area(np.histogram(people, edges)[0])
    total = sum((np.histogram(one, edges)[0] for one in values.values()), np.zeros(BINS, dtype=int))
    base = np.zeros(BINS)
    for name, one in values.items():
        found = np.histogram(one, edges)[0]
        body += _bars(base, found, total.max(), DECISION_COLOURS[name])
        base = base + found
    shown = [10**end if logarithmic else end for end in (low, high)]
    scale = (
        f'<line x1="0" y1="{FLOOR}" x2="{WIDTH}" y2="{FLOOR}" class="a"/>'
        f'<text x="2" y="{HEIGHT - 4}" class="s">{_number(shown[0])}</text>'
        f'<text x="{WIDTH - 2}" y="{HEIGHT - 4}" class="n">{_number(shown[1])} {unit}</text>'
    )
    return _svg(heading + body + scale, f"{title}: {counts}")


def _usable(values: Sequence[float], logarithmic: bool) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    usable: NDArray[np.float64] = np.log10(found[found > 0]) if logarithmic else found
    return usable


def _ends(values: NDArray[np.float64], limits: tuple[float, float] | None, logarithmic: bool) -> tuple[float, float]:
    if limits is not None:
        return limits
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.03 or (0.1 if logarithmic else 1.0)
    return low - room, high + room


def _area(counts: NDArray[np.int64]) -> str:
    if not counts.max():
        return ""
    step, points = WIDTH / BINS, [f"0,{FLOOR}"]
    for number, count in enumerate(counts):
        y = FLOOR - (FLOOR - 18) * count / counts.max()
        points += [f"{number * step:.1f},{y:.1f}", f"{(number + 1) * step:.1f},{y:.1f}"]
    return f'<polygon points="{" ".join(points)} {WIDTH},{FLOOR}" class="h"/>'


def _bars(base: NDArray[np.float64], counts: NDArray[np.int64], most: int, colour: str) -> str:
    """Return one path for all bars of a decision, above those drawn already."""
    step, scale = WIDTH / BINS, (FLOOR - 18) / most if most else 0.0
    parts = [
        f"M{number * step + 1:.1f} {FLOOR - scale * under:.1f}v{-scale * count:.1f}h{step - 2:.1f}v{scale * count:.1f}z"
        for number, (under, count) in enumerate(zip(base, counts, strict=True))
        if count
    ]
    return f'<path d="{"".join(parts)}" fill="{colour}" fill-opacity=".8"/>' if parts else ""


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _svg(body: str, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>'
