"""Patients who differ from the textbook: an organ removed, kidneys joined, lungs that touch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from datasets_registry.miniatures.frame import FAT_HU, LUNG_HU
from datasets_registry.miniatures.geometry import Blob, Tube
from datasets_registry.miniatures.shape import Paint, Shape

Change = Callable[[list[Shape]], list[Shape]]


def without(class_name: str) -> Change:
    """Return the change that removes an organ: fat takes its place, what grew in it goes too."""

    def change(shapes: list[Shape]) -> list[Shape]:
        kept = []
        for item in shapes:
            if item.class_name == class_name:
                kept.append(Shape(f"{item.name}_bed", item.group, item.solid, FAT_HU, None, Paint.FREE))
            elif item.paint is not Paint.WITHIN or class_name not in item.within or len(item.within) > 1:
                kept.append(item)
        return kept

    return change


def _horseshoe_kidney(shapes: list[Shape]) -> list[Shape]:
    """Join the lower poles in front of the spine by a bridge whose halves belong to their own side."""
    bridge: list[Shape] = []
    for side, sign, pole_z in (("right", 1, -10), ("left", -1, 0)):
        path = ((sign * 66.0, -24.0, float(pole_z)), (sign * 34.0, 22.0, -22.0), (0.0, 34.0, -24.0))
        # half spaces keep each half on its own side of the body's middle
        half = ((-sign * 1.0, 0.0, 0.0, 0.0),)
        name = f"{side}_kidney"
        bridge.append(Shape(f"{name}_bridge", "isthmus", Tube(path, (14, 12, 11), cuts=half), 185, name))
    return [*shapes, *bridge]


def _touching_lungs(shapes: list[Shape]) -> list[Shape]:
    """Let both lungs reach the middle in front of the heart, where they form one component."""
    junction: list[Shape] = []
    for side, sign in (("right", 1), ("left", -1)):
        half = ((-sign * 1.0, 0.0, 0.0, 0.0),)
        solid = Blob((sign * 30.0, 72.0, 200.0), (44, 15, 36), power=4, cuts=half)
        junction.append(Shape(f"{side}_lung_junction", "anterior_junction", solid, LUNG_HU, f"{side}_lung", Paint.FREE))
    return [*shapes, *junction]


PECULIAR: dict[str, Change] = {
    "no_spleen": without("spleen"),
    "no_gall_bladder": without("gall_bladder"),
    "no_left_kidney": without("left_kidney"),
    "no_right_kidney": without("right_kidney"),
    "no_stomach": without("stomach"),
    "horseshoe_kidney": _horseshoe_kidney,
    "touching_lungs": _touching_lungs,
}


def apply_peculiar(shapes: list[Shape], names: Iterable[str]) -> list[Shape]:
    """Return the shapes of a patient with these peculiarities, in painting order.

    Raises KeyError, which lists the known ones, for another name.
    """
    for name in names:
        if name not in PECULIAR:
            raise KeyError(f"no peculiarity {name!r}; known: {', '.join(PECULIAR)}")
        shapes = PECULIAR[name](shapes)
    return shapes
