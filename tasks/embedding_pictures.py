"""Text embeddings, drawn as in the paper's Figure 1: a matrix of cosines, and the classes on a plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from datasets_registry.taxonomy import ClassInfo, class_info
from tasks.embeddings import Similarities, plane

MARKERS = {"organ": "o", "vessel": "s", "tumour": "^", "cyst": "D"}
DPI = 130
REACHES = (13.0, 22.0, 34.0, 48.0, 64.0, 82.0, 104.0, 130.0)
"""How far from its mark a label may stand, in pixels, the nearest first."""


def similarity_matrix(similarities: Similarities, path: Path) -> Path:
    """Draw the cosine of every two classes as colour and number; the diagonal, always 1, is left grey."""
    infos = [class_info(name) for name in similarities.embeddings.names]
    count, values = len(infos), similarities.cosines
    others = values[~np.eye(count, dtype=bool)] if count > 1 else np.array([0.0, 1.0])
    side = 2.6 + 0.3 * count
    figure = Figure(figsize=(side + 0.9, side))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = np.where(np.eye(count, dtype=bool), np.nan, values)
    low, high = float(others.min()), float(others.max())
    picture = axes.imshow(np.ma.masked_invalid(shown), cmap="YlGnBu", vmin=low, vmax=max(high, low + 1e-6))
    axes.set_facecolor("0.85")
    for row, column in np.ndindex(count, count):
        if row != column:
            dark = values[row, column] > low + 0.6 * (high - low)
            text = f"{values[row, column] + 0.0:.2f}".replace("-0.00", "0.00").replace("0.", ".")
            axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color="white" if dark else "0.2")
    _name(axes, infos)
    bar = figure.colorbar(picture, ax=axes, shrink=0.5, aspect=40, pad=0.015)
    bar.set_label("cosine")
    axes.set_title(_headline(similarities), loc="left", fontsize=11)
    return _save(figure, path)


def _name(axes: Axes, infos: list[ClassInfo]) -> None:
    """Write the titles on two sides, each behind a square of the class's colour."""
    places = range(len(infos))
    axes.set_xticks(places, [info.title for info in infos], rotation=90, fontsize=8)
    axes.set_yticks(places, [info.title for info in infos], fontsize=8)
    axes.tick_params(length=0, pad=11)
    for axis, transform in (("y", axes.get_yaxis_transform()), ("x", axes.get_xaxis_transform())):
        for place, info in zip(places, infos, strict=True):
            at = (-0.01, place) if axis == "y" else (place, -0.01)
            axes.plot(*at, "s", color=info.colour, mec="0.3", mew=0.4, ms=7, transform=transform, clip_on=False)
    axes.set(xlim=(-0.5, len(infos) - 0.5), ylim=(len(infos) - 0.5, -0.5))
    axes.spines[:].set_visible(False)


def class_map(similarities: Similarities, path: Path) -> Path:
    """Draw the classes on the plane that keeps their distances best; lines join sides, and lesions with their organ."""
    infos = [class_info(name) for name in similarities.embeddings.names]
    places, shares = plane(similarities.embeddings.array)
    figure = Figure(figsize=(11, 8.5), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    place = {info.name: spot for info, spot in zip(infos, places, strict=True)}
    for info in infos:
        joined = [name for name in (*info.parents, info.mirror) if name in place]
        for name in joined:
            axes.plot(*zip(place[info.name], place[name], strict=True), color="0.8", linewidth=0.8, zorder=1)
    for info in infos:
        marker = MARKERS[info.kind]
        axes.plot(*place[info.name], marker, color=info.colour, mec="0.2", mew=0.7, ms=9, zorder=3)
    axes.set_xlabel(f"first axis ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second axis ({shares[1]:.0%})")
    axes.margins(0.12)
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.25)
    keys = [
        Line2D([], [], marker=marker, color="0.6", mec="0.2", linestyle="", label=kind)
        for kind, marker in MARKERS.items()
        if any(info.kind == kind for info in infos)
    ]
    keys.append(Line2D([], [], color="0.7", linewidth=0.8, label="two sides; inside"))
    axes.legend(handles=keys, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(_headline(similarities), loc="left", fontsize=11)
    figure.draw_without_rendering()  # fixes the layout, so that sizes in pixels hold
    renderer: RendererAgg = canvas.get_renderer()  # type: ignore[no-untyped-call]
    _label(axes, renderer, infos, places)
    return _save(figure, path)


def _label(axes: Axes, renderer: RendererAgg, infos: list[ClassInfo], places: NDArray[np.float64]) -> None:
    """Write each title at the nearest free spot around its mark, with a thin line to it when it is not beside it."""
    pixels = axes.transData.transform(places)  # (n, 2)
    frame = axes.get_window_extent(renderer)
    taken = [Bbox.from_bounds(x - 10, y - 10, 20, 20) for x, y in pixels]
    # those in a crowd have fewest spots, so they choose first
    distances = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    crowd = np.argsort(np.sort(distances, axis=1)[:, : min(5, len(infos))].sum(axis=1))
    for number in crowd:
        x, y = pixels[number]
        measured = axes.text(0, 0, infos[number].title, fontsize=8.5, transform=None)
        size = measured.get_window_extent(renderer)
        measured.remove()
        box = _free_spot(x, y, size.width, size.height, taken, frame)
        taken.append(box)
        gap = np.hypot(max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0))
        axes.annotate(
            infos[number].title,
            places[number],
            xytext=tuple(axes.transData.inverted().transform((box.x0, box.y0))),
            fontsize=8.5,
            zorder=4,
            va="bottom",
            arrowprops=None
            if gap <= REACHES[0] + 2
            else {"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 5},
        )


def _free_spot(x: float, y: float, width: float, height: float, taken: list[Bbox], frame: Bbox) -> Bbox:
    """Return the box of that size, nearest to the mark at (x, y), that touches none of `taken` and stays in `frame`."""
    best: tuple[float, Bbox] | None = None
    for reach in REACHES:
        for angle in np.arange(24) * (2 * np.pi / 24):
            across, up = np.cos(angle), np.sin(angle)
            # the box's near side, not its middle, lies at the reach
            centre = (x + across * (reach + width / 2), y + up * (reach + height / 2))
            box = Bbox.from_bounds(centre[0] - width / 2, centre[1] - height / 2, width, height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            wide = Bbox.from_extents(box.x0 - 2, box.y0 - 2, box.x1 + 2, box.y1 + 2)
            clashes = sum(wide.overlaps(other) for other in taken) + 10 * (not inside)
            if not clashes:
                return box
            if best is None or clashes < best[0]:
                best = (clashes, box)
    if best is None:
        raise ValueError(f"no place for a label at {x}, {y}")
    return best[1]


def _headline(similarities: Similarities) -> str:
    found = similarities.embeddings
    return f"{len(found.names)} classes, encoder {found.encoder}, prompt {found.prompt}"


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.15)
    return path
