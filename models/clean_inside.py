"""Lesions and vessels at their organ: what reaches too far out of it goes, what stays belongs to the organ too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

import edt
import numpy as np
from numpy.typing import NDArray

from datasets_registry.class_rules import RuleSwitches
from datasets_registry.taxonomy import ClassInfo
from imaging.bits import WORD_BITS, Bits, channel_boxes
from imaging.components import Box, bounding_box, box_slices, grow
from imaging.regions import look_up
from imaging.threads import case_threads
from models.clean_rules import proper_parts
from models.clean_sheet import Chosen, Sheet

Counts = Counter[tuple[str, str, str]]
"""(class name, rule, "removed" or "added") -> voxels."""


@dataclass(frozen=True, eq=False)
class Outside:
    """What of a class lies outside its organs, and where those organs are; (R,) of the sheet's regions.

    organs: name of each parent that was predicted -> its proper parts. removed: whether the sheet has lost `regions`.
    """

    row: ClassInfo
    regions: Chosen
    organs: dict[str, Chosen]
    removed: bool


def take_outside(sheet: Sheet, switches: RuleSwitches) -> list[Outside]:
    """Take from the sheet what lies outside its organs, of all classes for which inside_organ is used.

    `bring_back` gives back what is within reach. The rule waits unless all organs in which a class may lie were
    predicted: one that nobody asked for proves nothing. Organs come before what lies in them.
    """
    rows = sheet.rows
    proper = {name: proper_parts(sheet, row) for name, row in rows.items() if sheet.children(row)}
    order = TopologicalSorter({row.name: set(row.parents) & set(rows) for row in rows.values()})
    found = []
    for name in order.static_order():
        row = rows[name]
        organs = {parent: proper[parent] & sheet.of(rows[parent]) for parent in row.parents if parent in rows}
        if organs:
            outside = sheet.of(row) & ~np.any(list(organs.values()), axis=0)
            removed = len(organs) == len(row.parents) and switches.applies("inside_organ", name)
            if removed:
                sheet.become({name: sheet.of(row) & ~outside})
            if outside.any():
                found.append(Outside(row, outside, organs, removed))
    return found


def bring_back(
    bits: Bits, sheet: Sheet, found: Sequence[Outside], spacing_mm: tuple[float, float, float], switches: RuleSwitches
) -> Counts:
    """Give back what lies within `margin_mm` of an organ, and make it part of the nearest one; return what changed.

    bits: (W, x, y, z) painted from the sheet, changed in place. The 26 neighbours of an organ's voxels are always
    within reach: otherwise one that reaches 5 mm out of voxels of 6 mm could not reach out at all. Of equally near
    organs the first in `parents` wins. includes_lesions tells which organs take up what lies in their reach.
    """
    counts: Counts = Counter()
    boxes = channel_boxes(bits)
    diagonal = float(np.linalg.norm(spacing_mm))
    for each in found:
        reach_mm = max(each.row.margin_mm, diagonal) * (1 + 1e-6)
        near = _near(sheet, each, reach_mm, spacing_mm, boxes)
        kept = 0
        if near is not None:
            box, place, owner = near
            kept = len(owner)
            part = bits[(slice(None), *box_slices(box))]
            _set(part, each.row.channel, place)
            for index, name in enumerate(each.organs):
                _take_up(part, sheet, name, tuple(axis[owner == index] for axis in place), switches, counts)
        if each.removed:
            gone = int(sheet.regions.voxels[each.regions].sum()) - kept
            counts[each.row.name, "inside_organ", "removed"] += gone
    return counts


def _take_up(
    bits: Bits,
    sheet: Sheet,
    name: str,
    place: tuple[NDArray[np.intp], ...],
    switches: RuleSwitches,
    counts: Counts,
) -> None:
    """Let an organ take up what lies in its reach, at `place`, and the organ in which it must lie itself do so too.

    Where that may be one of several, and none of them has the voxel, it is the first in `parents`.
    """
    if not switches.applies("includes_lesions", name):
        return
    row = sheet.rows[name]
    counts[name, "includes_lesions", "added"] += _set(bits, row.channel, place)
    parents = [parent for parent in row.parents if parent in sheet.rows]
    if parents and len(parents) == len(row.parents) and switches.applies("inside_organ", name):
        out = ~np.any([_has(bits, sheet.rows[parent].channel, place) for parent in parents], axis=0)
        _take_up(bits, sheet, parents[0], tuple(axis[out] for axis in place), switches, counts)


Near = tuple[Box, tuple[NDArray[np.intp], ...], NDArray[np.intp]]
"""A box, the places of voxels in it (three arrays of indices), and which organ is nearest to each."""


def _near(
    sheet: Sheet,
    outside: Outside,
    reach_mm: float,
    spacing_mm: tuple[float, float, float],
    boxes: dict[int, Box],
) -> Near | None:
    """Return the voxels outside that are within reach of an organ, None where there are none."""
    labels = sheet.regions.labels
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    steps = (int(reach_mm / spacing_mm[0]), int(reach_mm / spacing_mm[1]), int(reach_mm / spacing_mm[2]))
    organs = {name: boxes[sheet.rows[name].channel] for name in outside.organs if sheet.rows[name].channel in boxes}
    if not organs:
        return None
    around = grow(_union(organs.values()), steps, shape)
    out = look_up(outside.regions, labels[box_slices(around)])
    tight = bounding_box(out)
    if tight is None:
        return None
    box = _moved(tight, around)
    place = np.nonzero(out[box_slices(tight)])
    distances = np.full((len(outside.organs), len(place[0])), np.inf, dtype=np.float32)
    for index, (name, chosen) in enumerate(outside.organs.items()):
        if name in organs:
            # what is farther from the organ than the reach, and from the voxels asked about, decides nothing
            wide = _common(grow(box, steps, shape), grow(organs[name], steps, shape))
            if wide is not None:
                organ = look_up(chosen, labels[box_slices(wide)])
                distances[index] = _distance_mm(organ, _moved(wide, box, -1), place, spacing_mm)
    within = distances.min(axis=0) <= reach_mm
    return box, tuple(axis[within] for axis in place), distances.argmin(axis=0)[within]


def _distance_mm(
    organ: NDArray[np.bool_],
    box: Box,
    place: tuple[NDArray[np.intp], ...],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """Return the distance in mm to an organ (x, y, z), which fills `box`, at each place; inf outside the box."""
    result = np.full(len(place[0]), np.inf, dtype=np.float32)
    if not organ.any():
        return result
    distance = edt.edt(~organ, anisotropy=spacing_mm, black_border=False, parallel=case_threads())
    moved = [axis - box[number] for number, axis in enumerate(place)]
    inside = np.all([(axis >= 0) & (axis < size) for axis, size in zip(moved, organ.shape, strict=True)], axis=0)
    result[inside] = distance[tuple(axis[inside] for axis in moved)]
    return result


def _set(bits: Bits, channel: int, place: tuple[NDArray[np.intp], ...]) -> int:
    """Set a channel at some places, in place; return how many did not have it."""
    before = _has(bits, channel, place)
    bits[channel // WORD_BITS][place] |= np.uint32(1 << channel % WORD_BITS)
    return int(np.count_nonzero(~before))


def _has(bits: Bits, channel: int, place: tuple[NDArray[np.intp], ...]) -> NDArray[np.bool_]:
    """Return whether each of some places has a channel."""
    found: NDArray[np.bool_] = (bits[channel // WORD_BITS][place] & np.uint32(1 << channel % WORD_BITS)) != 0
    return found


def _moved(box: Box, by: Box, sign: int = 1) -> Box:
    """Return a box that is given within `by` in the voxels that `by` is given in; with sign -1 the other way round."""
    x, y, z = (sign * by[axis] for axis in range(3))
    return (box[0] + x, box[1] + y, box[2] + z, box[3] + x, box[4] + y, box[5] + z)


def _common(one: Box, other: Box) -> Box | None:
    """Return what two boxes have in common, None where that is nothing."""
    low = [max(one[axis], other[axis]) for axis in range(3)]
    high = [min(one[axis + 3], other[axis + 3]) for axis in range(3)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return None
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def _union(boxes: Iterable[Box]) -> Box:
    """Return the box around some boxes."""
    listed = np.array(list(boxes))
    low, high = listed.min(axis=0), listed.max(axis=0)
    return (int(low[0]), int(low[1]), int(low[2]), int(high[3]), int(high[4]), int(high[5]))
