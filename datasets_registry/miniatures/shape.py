"""`Shape`: one entry of the anatomy table, a solid with its tissue and how it is painted over what is there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from datasets_registry.miniatures.geometry import Point, Solid


class Paint(Enum):
    """How a shape treats the classes already painted in its voxels."""

    REPLACE = "the voxels become this shape's class, or no class, whatever they were"
    WITHIN = "only voxels of the classes in `within` are painted; they keep those classes and gain the shape's"
    FREE = "only voxels of no class are painted, so that an organ may bulge into fat but not into its neighbours"


@dataclass(frozen=True)
class Shape:
    """One solid of the body.

    name: unique, for people. group: shapes of one group move and scale together from case to case. hu: mean HU.
    class_name: class of the taxonomy, None for other tissue. texture_hu: how coarse the content is (standard
    deviation in HU on top of the image noise), for stool. The anatomy's order is the painting order, later wins.
    """

    name: str
    group: str
    solid: Solid
    hu: float
    class_name: str | None = None
    paint: Paint = Paint.REPLACE
    within: tuple[str, ...] = ()
    texture_hu: float = 0.0

    @property
    def centre(self) -> Point:
        """The middle of the solid's box, mm."""
        low, high = self.solid.bounds()
        x, y, z = ((a + b) / 2 for a, b in zip(low, high, strict=True))
        return (x, y, z)
