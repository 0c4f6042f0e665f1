"""Cleaning rules on regions, one function a rule: each takes the sheet as it is and says what classes shall become.

A rule looks at the sheet as the rule before it left it, for every class alike; so the order of classes never counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets_registry.taxonomy import ClassInfo
from imaging.sides import side_of_parts
from models.clean_sheet import Chosen, Parts, Sheet

Sets = dict[str, Chosen]
"""Class name -> the regions it shall have."""


def min_size(sheet: Sheet, rows: Sequence[ClassInfo]) -> Sets:
    """Remove the 26-connected parts of a class that are smaller than its `min_ml`, in ml.

    A part that touches the scan's border stays: how large it is beyond nobody knows.
    """
    result: Sets = {}
    for row in rows:
        if row.min_ml:
            parts = sheet.parts(row)
            ml = parts.sum() * sheet.voxel_ml
            result[row.name] = parts.regions((ml >= row.min_ml * (1 - 1e-9)) | parts.any(sheet.regions.on_border))
    return result


def sides(sheet: Sheet, rows: Sequence[ClassInfo]) -> Sets:
    """Give each part of a right or left organ to the class of the side on which it lies.

    A voxel that both classes of a pair claim belongs to the side on which it lies. Then each 26-connected part of each
    class goes whole to the side of most of its voxels, or is cut at the middle where at least 15 % of them lie on
    either side (joined lungs, a horseshoe kidney). Voxels of lesions inside do not count, and a part made of nothing
    else stays. The rule waits where only one of the two classes was predicted.
    """
    named = {row.name: row for row in rows}
    right = sheet.regions.right
    result: Sets = {}
    for row in rows:
        other = named.get(row.mirror or "")
        if row.side != "right" or other is None or other.side != "left" or other.mirror != row.name:
            continue
        both = sheet.of(row) & sheet.of(other)
        moved = {row.name: np.zeros_like(right), other.name: np.zeros_like(right)}
        for one, wrong in ((row, both & ~right), (other, both & right)):
            chosen, own = sheet.of(one) & ~wrong, sheet.own(one) & ~wrong
            parts = Parts(sheet.regions, chosen)
            voxels = parts.sum(own)
            whole, cut = side_of_parts(voxels, parts.sum(own & right))
            stays = voxels == 0
            goes_right = np.where(parts.regions(cut), right, parts.regions(whole))
            goes_right = np.where(parts.regions(stays), one is row, goes_right)
            moved[row.name] |= chosen & goes_right
            moved[other.name] |= chosen & ~goes_right
        result |= moved
    return result


def largest_component(sheet: Sheet, rows: Sequence[ClassInfo]) -> Sets:
    """Keep of a class as many 26-connected parts as a healthy adult has, `components`, the largest ones in voxels.

    Parts of an organ made of nothing but its lesions do not compete, unless there are no others; of equal parts the
    first found stays.
    """
    result: Sets = {}
    for row in rows:
        if row.components is not None:
            parts = sheet.parts(row)
            voxels = np.where(_proper(parts, sheet.own(row)), parts.sum(), 0)
            kept = np.zeros(parts.count + 1, dtype=bool)
            kept[np.argsort(-voxels, kind="stable")[: row.components]] = True
            result[row.name] = parts.regions(kept & (voxels > 0))
    return result


def holes(sheet: Sheet, rows: Sequence[ClassInfo]) -> Sets:
    """Fill the cavities of a class: what it encloses so that no way through 6-neighbours leads out of the scan.

    What another class has in a cavity stays unfilled, unless that class lies in this one, or this one in it.
    """
    result: Sets = {}
    for row in rows:
        if row.holes:
            chosen = sheet.of(row)
            cavities = sheet.regions.cavities(chosen)
            if cavities.any():
                family = [row, *_below(sheet, row), *_above(sheet, row)]
                result[row.name] = chosen | (cavities & ~sheet.without(family))
    return result


def proper_parts(sheet: Sheet, row: ClassInfo) -> Chosen:
    """Return the regions of a class without the parts made of nothing but its lesions; all where there is no other."""
    parts = sheet.parts(row)
    return parts.regions(_proper(parts, sheet.own(row)))


def _proper(parts: Parts, own: Chosen) -> Chosen:
    proper = parts.any(own)
    return proper if proper.any() else np.ones_like(proper)


def _below(sheet: Sheet, row: ClassInfo) -> list[ClassInfo]:
    return [each for child in sheet.children(row) for each in (child, *_below(sheet, child))]


def _above(sheet: Sheet, row: ClassInfo) -> list[ClassInfo]:
    parents = [sheet.rows[name] for name in row.parents if name in sheet.rows]
    return [each for parent in parents for each in (parent, *_above(sheet, parent))]
