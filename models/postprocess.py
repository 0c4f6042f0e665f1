"""Anatomy applied to predicted masks: the rules that the class table declares, in one order, until nothing changes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets_registry.class_rules import RULES, RuleSwitches
from datasets_registry.taxonomy import ClassInfo, all_classes
from imaging.bits import WORD_BITS, Bits, channel_boxes
from imaging.components import Box, box_slices
from imaging.regions import TooRagged, find_regions, look_up
from imaging.resample import orientation
from imaging.sides import right_of
from imaging.volume import Affine
from models.clean_evidence import odd_sides
from models.clean_inside import Counts, bring_back, take_outside
from models.clean_rules import Sets, holes, largest_component, min_size, sides
from models.clean_sheet import Sheet
from models.cleaned import Cleaned

CLEANING_VERSION = "1"
"""Part of every digest of rules: raise it when a rule does something else."""

MOST_ROUNDS = 8
"""Two rounds settle almost all scans: one that cleans, one that finds nothing left to do."""

MOST_REGIONS = 100_000
"""Up to so many regions all classes are cleaned at once. A trained network's scan has some thousand; what is nearly
noise has millions, and their tables would outgrow the scan."""

ON_REGIONS: dict[str, Callable[[Sheet, Sequence[ClassInfo]], Sets]] = {
    "min_size": min_size,
    "sides": sides,
    "largest_component": largest_component,
    "holes": holes,
}

ALL_RULES = RuleSwitches()


def clean(
    bits: Bits,
    classes: Sequence[str] | None = None,
    table: Sequence[ClassInfo] | None = None,
    *,
    affine: Affine,
    midline_x: NDArray[np.float64] | None = None,
    switches: RuleSwitches = ALL_RULES,
) -> Cleaned:
    """Return the masks after the rules of their classes; cleaning a cleaned scan changes nothing.

    The rules and their order: `RULES`, in words and with reasons docs/design/0021-cleaning.md. They are gone through
    again until nothing changes any more.
    bits: (W, X, Y, Z), not changed; bits of no class of the table stay as they are. classes: names that were predicted,
    None for all; what is left out is not touched and proves nothing about the others. table: the class table. affine:
    4 x 4, voxel index to RAS mm. midline_x: (Z,) world x in mm of `imaging.sides.body_midline_x`; without it right and
    left are left as they are. switches: rules in use.
    Raises ValueError where a middle is given for axes that are not RAS, or of another length than Z.
    """
    rows = _rows(classes, table)
    _check_middle(bits, affine, midline_x)
    frame = _Frame(affine, midline_x, switches)
    result, counts = bits.copy(order="K"), Counter[tuple[str, str, str]]()
    try:
        remarks = _settle(result, rows, frame, counts, MOST_REGIONS)
    except TooRagged as problem:
        remarks = [f"ragged masks ({problem}): classes that have nothing to do with each other were cleaned apart"]
        for family in _families(rows):
            remarks += _settle(result, family, frame, counts, None)
        with suppress(TooRagged):
            remarks += _settle(result, rows, frame, counts, MOST_REGIONS)
    removed, added = _changes(bits, result, rows)
    return Cleaned(result, removed, added, _record(counts, rows), tuple(dict.fromkeys(remarks)))


@dataclass(frozen=True, eq=False)
class _Frame:
    """Where the scan lies, and which rules are used; see `clean`."""

    affine: Affine
    midline_x: NDArray[np.float64] | None
    switches: RuleSwitches

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


def _settle(bits: Bits, rows: Sequence[ClassInfo], frame: _Frame, counts: Counts, most: int | None) -> list[str]:
    """Clean some classes in place, round by round until nothing changes; add to `counts`, return remarks.

    Raises TooRagged, with nothing changed by that round, where the classes fall into over `most` regions.
    """
    managed, switches = _managed(rows, bits.shape[0]), frame.switches
    odd = ""
    for _ in range(MOST_ROUNDS):
        box = _box_around(bits, managed)
        if box is None:
            return []
        right = None if frame.midline_x is None else right_of(frame.midline_x, frame.affine, box)
        sheet = Sheet(find_regions(bits, managed, box, right, most=most), rows, frame.voxel_ml)
        odd = "" if right is None or "sides" not in switches.on else odd_sides(sheet, rows)
        found = _on_regions(sheet, rows, switches, with_sides=right is not None and not odd)
        outside = take_outside(sheet, switches)
        before = bits[(slice(None), *box_slices(box))]
        after = _painted(before, sheet, managed)
        found.update(bring_back(after, sheet, outside, frame.spacing_mm, switches))
        if np.array_equal(before, after):
            return [odd] if odd else []
        counts.update(found)
        before[...] = after
    return [*([odd] if odd else []), f"cleaning did not settle in {MOST_ROUNDS} rounds; look at the masks"]


def _families(rows: Sequence[ClassInfo]) -> list[list[ClassInfo]]:
    """Return the classes in groups of those that rules relate: organs, what lies in them, and their partners."""
    family = {row.name: {row.name} for row in rows}
    for row in rows:
        for name in (*row.parents, row.mirror):
            if name in family and family[name] is not family[row.name]:
                joined = family[name] | family[row.name]
                family |= dict.fromkeys(joined, joined)
    groups = {id(names): names for names in family.values()}.values()
    return [[row for row in rows if row.name in names] for names in groups]


def needs_middle(classes: Sequence[str], switches: RuleSwitches = ALL_RULES) -> bool:
    """Tell whether `clean` has a use for the body's middle: a right class and its left partner were predicted."""
    return "sides" in switches.on and any(row.name in classes and row.mirror in classes for row in all_classes())


def rules_digest(
    switches: RuleSwitches = ALL_RULES,
    classes: Sequence[str] | None = None,
    table: Sequence[ClassInfo] | None = None,
) -> str:
    """Return 16 hexadecimal digits that name what cleaning does to masks: equal rules give equal digits.

    They cover the version of the rules, the switches, and what the table declares for `classes`, None for all.
    """
    told = [CLEANING_VERSION, ",".join(RULES), switches.text()]
    for row in _rows(classes, table):
        fields = (row.channel, row.components, row.side, row.mirror, row.parents, row.margin_mm, row.min_ml)
        told.append(f"{row.name} {fields} {row.holes} {row.lies}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _rows(classes: Sequence[str] | None, table: Sequence[ClassInfo] | None) -> list[ClassInfo]:
    return [row for row in (table or all_classes()) if classes is None or row.name in classes]


def _check_middle(bits: Bits, affine: Affine, midline_x: NDArray[np.float64] | None) -> None:
    if midline_x is None:
        return
    if orientation(affine) != "RAS":
        raise ValueError(f"class bits that point {orientation(affine)}: RAS is needed to tell sides; orient them first")
    if midline_x.shape != bits.shape[3:]:
        raise ValueError(f"midline of shape {midline_x.shape} for bits of shape {bits.shape}: one x per axial slice")


def _managed(rows: Sequence[ClassInfo], words: int) -> NDArray[np.uint32]:
    """Return the bits of the classes, (W,) uint32."""
    managed = np.zeros(words, dtype=np.uint32)
    for row in rows:
        managed[row.channel // WORD_BITS] |= np.uint32(1 << row.channel % WORD_BITS)
    return managed


def _box_around(bits: Bits, managed: NDArray[np.uint32]) -> Box | None:
    """Return the box around all managed bits, None where none is set."""
    boxes = [
        box
        for channel, box in channel_boxes(bits).items()
        if int(managed[channel // WORD_BITS]) >> channel % WORD_BITS & 1
    ]
    if not boxes:
        return None
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return (int(low[0]), int(low[1]), int(low[2]), int(high[3]), int(high[4]), int(high[5]))


def _on_regions(sheet: Sheet, rows: Sequence[ClassInfo], switches: RuleSwitches, *, with_sides: bool) -> Counts:
    """Apply the rules that need nothing but the sheet, in their order, and return what they changed."""
    counts: Counts = Counter()
    for rule in RULES:
        if rule in ON_REGIONS and (with_sides or rule != "sides"):
            before = sheet.words.copy()
            sheet.become(ON_REGIONS[rule](sheet, [row for row in rows if switches.applies(rule, row.name)]))
            for name, (gone, new) in sheet.changes(before).items():
                counts[name, rule, "removed"] += gone
                counts[name, rule, "added"] += new
    return counts


def _painted(bits: Bits, sheet: Sheet, managed: NDArray[np.uint32]) -> Bits:
    """Return bits (W, x, y, z) of the sheet's box with the classes that it has, and others as they were."""
    result = np.empty_like(bits)
    for index, mask in enumerate(managed):
        result[index] = look_up(sheet.words[:, index], sheet.regions.labels)
        if mask != np.iinfo(np.uint32).max:
            result[index] |= bits[index] & ~mask
    return result


def _changes(before: Bits, after: Bits, rows: Sequence[ClassInfo]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the voxels that each class lost and won, where there are any."""
    changed = [np.flatnonzero((old ^ new).ravel(order="K")) for old, new in zip(before, after, strict=True)]
    removed: dict[str, int] = {}
    added: dict[str, int] = {}
    for row in rows:
        index, bit = row.channel // WORD_BITS, np.uint32(1 << row.channel % WORD_BITS)
        old, new = (bits[index].ravel(order="K")[changed[index]] & bit for bits in (before, after))
        gone, came = int(np.count_nonzero(old & ~new)), int(np.count_nonzero(new & ~old))
        removed |= {row.name: gone} if gone else {}
        added |= {row.name: came} if came else {}
    return removed, added


def _record(counts: Counts, rows: Sequence[ClassInfo]) -> dict[str, list[dict[str, str | int]]]:
    """Return per class the rules that changed something, in their order."""
    record: dict[str, list[dict[str, str | int]]] = {}
    for row in rows:
        for rule in RULES:
            gone, new = counts[row.name, rule, "removed"], counts[row.name, rule, "added"]
            if gone or new:
                record.setdefault(row.name, []).append({"rule": rule, "removed": gone, "added": new})
    return record
