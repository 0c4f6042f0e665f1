"""Where the phantom's tumours and cysts sit, how large and how bright they are, and how often they occur."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from datasets_registry.miniatures.geometry import Blob, Point
from datasets_registry.miniatures.shape import Paint, Shape
from datasets_registry.taxonomy import class_info


@dataclass(frozen=True)
class Site:
    """A place where a lesion may grow: its middle, the organ it belongs to and the group it moves with."""

    centre: Point
    parent: str
    group: str


@dataclass(frozen=True)
class LesionKind:
    """One lesion class: probability a case has any, radius range in mm, HU of core and rim, sites.

    bulges: whether it pushes the organ's outline into the fat around it; else it ends at the organ's surface.
    rim_mm: thickness of the rim, 0 for none.
    """

    probability: float
    most: int
    radius_mm: tuple[float, float]
    core_hu: float
    rim_hu: float
    rim_mm: float
    bulges: bool
    sites: tuple[Site, ...]


KINDS: dict[str, LesionKind] = {
    "kidney_tumor": LesionKind(
        0.3,
        1,
        (13, 24),
        88,
        122,
        3,
        True,
        (
            Site((86, -38, 6), "right_kidney", "right_kidney"),
            Site((84, -48, 54), "right_kidney", "right_kidney"),
            Site((-88, -44, 18), "left_kidney", "left_kidney"),
            Site((-84, -46, 66), "left_kidney", "left_kidney"),
        ),
    ),
    "liver_tumor": LesionKind(
        0.35,
        4,
        (9, 22),
        52,
        78,
        3,
        False,
        (
            Site((116, 2, 82), "liver", "liver"),
            Site((92, 58, 98), "liver", "liver"),
            Site((108, 12, 40), "liver", "liver"),
            Site((96, -34, 108), "liver", "liver"),
            Site((-10, 62, 124), "liver", "liver"),
            Site((72, 26, 138), "liver", "liver"),
        ),
    ),
    "pancreas_tumor": LesionKind(
        0.25,
        1,
        (11, 17),
        38,
        55,
        2,
        True,
        (
            Site((30, 36, 28), "pancreas", "pancreas"),
            Site((-6, 48, 66), "pancreas", "pancreas"),
            Site((-56, 12, 84), "pancreas", "pancreas"),
        ),
    ),
    "hepatic_vessel_tumor": LesionKind(
        0.15,
        2,
        (10, 18),
        30,
        150,
        4,
        False,
        (
            Site((70, 34, 104), "liver", "liver"),
            Site((84, -6, 96), "liver", "liver"),
            Site((22, 54, 120), "liver", "liver"),
        ),
    ),
    "lung_tumor": LesionKind(
        0.25,
        1,
        (10, 20),
        42,
        30,
        2,
        False,
        (
            Site((92, -44, 180), "right_lung", "lungs"),
            Site((64, 48, 206), "right_lung", "lungs"),
            Site((-92, -44, 176), "left_lung", "lungs"),
            Site((-84, 40, 200), "left_lung", "lungs"),
        ),
    ),
    "colon_tumor": LesionKind(
        0.25,
        1,
        (14, 21),
        96,
        84,
        3,
        True,
        (
            Site((116, 20, -34), "colon", "colon"),
            Site((20, 100, -12), "colon", "colon"),
            Site((-68, 18, -114), "colon", "colon"),
            Site((-124, -8, -20), "colon", "colon"),
        ),
    ),
    "kidney_cyst": LesionKind(
        0.35,
        2,
        (9, 18),
        7,
        14,
        1,
        True,
        (
            Site((76, -50, 74), "right_kidney", "right_kidney"),
            Site((90, -26, 34), "right_kidney", "right_kidney"),
            Site((-76, -50, 0), "left_kidney", "left_kidney"),
            Site((-94, -32, 44), "left_kidney", "left_kidney"),
        ),
    ),
}


def choose_counts(rng: np.random.Generator, requested: Mapping[str, int]) -> dict[str, int]:
    """Return how many lesions of each class a case has: the requested number, else drawn with the class's probability.

    A KeyError names a requested class that the phantom cannot grow; a ValueError a negative count.
    """
    for name, count in requested.items():
        if name not in KINDS:
            raise KeyError(f"lesion {name!r} is not one the phantom grows; known: {', '.join(KINDS)}")
        if count < 0:
            raise ValueError(f"{count} lesions of class {name!r}; give 0 for none")
    counts = {}
    for name, kind in KINDS.items():
        # drawn for requested ones too, so that a request for one class leaves the rest of the body as it is
        drawn = int(rng.integers(1, kind.most + 1)) if rng.random() < kind.probability else 0
        counts[name] = min(requested.get(name, drawn), len(kind.sites))
    return counts


def grow(name: str, count: int, rng: np.random.Generator) -> list[Shape]:
    """Return the shapes of `count` lesions of one class at different sites, in painting order."""
    kind = KINDS[name]
    shapes: list[Shape] = []
    for index in rng.permutation(len(kind.sites))[:count]:
        shapes += _lesion(name, kind, kind.sites[int(index)], rng)
    return shapes


def _lesion(name: str, kind: LesionKind, site: Site, rng: np.random.Generator) -> list[Shape]:
    radius = rng.uniform(*kind.radius_mm)
    radii = tuple(float(value) for value in radius * rng.uniform(0.88, 1.14, 3))
    centre = tuple(float(value) for value in np.array(site.centre) + rng.normal(0, 2.5, 3))
    tilt = (0.0, 0.0, float(rng.uniform(-40, 40)))
    whole = Blob((centre[0], centre[1], centre[2]), (radii[0], radii[1], radii[2]), tilt)
    core = Blob(whole.centre, (radii[0] - kind.rim_mm, radii[1] - kind.rim_mm, radii[2] - kind.rim_mm), tilt)
    label = f"{name}_{site.parent}_{centre[0]:.0f}_{centre[2]:.0f}"
    shapes = []
    if kind.bulges:
        shapes.append(Shape(f"{label}_bulge", site.group, whole, kind.rim_hu, site.parent, Paint.FREE))
    within = class_info(name).parents or (site.parent,)
    shapes.append(Shape(f"{label}_rim", site.group, whole, kind.rim_hu, name, Paint.WITHIN, within))
    texture = 0.0 if kind.core_hu < 20 or site.parent.endswith("lung") else 8.0
    shapes.append(Shape(label, site.group, core, kind.core_hu, name, Paint.WITHIN, within, texture))
    return shapes
