"""How unusual a predicted mask is: robust z-scores against human labels, organs that are missing, sides exchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datasets_registry.taxonomy import all_classes, class_info
from imaging.scan_quality import ScanQuality
from tasks.plausibility import LEAST_VOXELS
from tasks.plausibility_reference import LEAST_CASES, HumanReference

LEAST_LANDMARKS = 3
"""Organs that must say where another one lies: one that is itself wrong is then outvoted."""
ALWAYS_THERE = 0.95
"""Share of human labels with a voxel from which a class counts as one that everybody has."""
INSIDE_SHARE = 0.5
"""Of an organ's usual half size, how much must fit into the scan around its expected middle for it to be missed."""
RIGHT_OF = (("liver", "spleen"), ("liver", "stomach"), ("postcava", "aorta"), ("gall_bladder", "spleen"))
"""The first lies further to the patient's right than the second; besides pairs of a right and a left organ."""
LARGE_SPLEEN = 0.5
"""Of the liver's volume; usual is an eighth."""
AXES = ("x", "y", "z")

Row = Mapping[str, Any]


def robust_z(row: Row, others: Mapping[str, Row], reference: HumanReference, quality: ScanQuality) -> dict[str, float]:
    """Return the z-score of each figure of one class that something is known of: 0 usual, beyond 5 hardly ever seen.

    row: of the `labels` table. others: the rows of the case by class, of which organs tell where this one should lie.
    Volume is compared as its logarithm. Position is the distance to other organs along each axis, so that fields of
    view do not matter: the median over these organs, none of which the border cuts. A mask at the border is whole
    nowhere: there a small volume is excused, and the position along the axes on which it is cut.
    """
    name = str(row["class_name"])
    if not row["voxels"]:
        return {}
    found: dict[str, float] = {}
    volume = reference.usual(name, "volume")
    if volume is not None:
        z = volume.z(math.log(row["ml"]))
        if z > 0 or not row["touches_border"]:
            found["volume"] = z
    hu = reference.usual(name, "hu_mean")
    if hu is not None and row["voxels"] >= LEAST_VOXELS and row["hu_mean"] is not None:
        found["hu_mean"] = hu.z(float(row["hu_mean"]))
    parts = reference.usual(name, "components")
    if parts is not None:
        found["components"] = parts.z(float(row["components"]))
    touches, labels = reference.border.get(name, (0, 0))
    if row["touches_border"] and labels >= LEAST_CASES:
        share = (touches + 1) / (labels + 2)
        found["border"] = (1 - share) / math.sqrt(share * (1 - share))
    cut = _cut_axes(row, quality)
    for axis, along in enumerate(AXES):
        votes = [
            usual[axis].z(float(row["centroid_mm"][axis] - others[other]["centroid_mm"][axis]))
            for other, usual in reference.offsets.get(name, {}).items()
            if _is_landmark(others.get(other))
        ]
        if len(votes) >= LEAST_LANDMARKS and axis not in cut:
            found[along] = float(np.median(votes))
    return found


def missing_organs(rows: Mapping[str, Row], reference: HumanReference, quality: ScanQuality) -> dict[str, str]:
    """Return a flag for each class without a voxel that everybody has and that the scan must show, by class.

    Where it should lie is told by at least three other organs; the scan must reach around that place.
    """
    flags = {}
    for name, row in rows.items():
        there, labels = reference.present.get(name, (0, 0))
        if row["voxels"] or class_info(name).is_lesion or labels < LEAST_CASES or there < ALWAYS_THERE * labels:
            continue
        places = [
            [float(others["centroid_mm"][axis]) + usual[axis].median for axis in range(3)]
            for other, usual in reference.offsets.get(name, {}).items()
            if _is_landmark(others := rows.get(other, {}))
        ]
        if len(places) < LEAST_LANDMARKS:
            continue
        place = np.median(np.array(places), axis=0)
        if _scan_reaches_around(place, reference.reach_mm.get(name, (0.0, 0.0, 0.0)), quality):
            where = ", ".join(f"{value:.0f}" for value in place)
            flags[name] = (
                f"missing: no {class_info(name).title} found, though {there} of {labels} human labels show one and the "
                f"scan covers its place at ({where}) mm"
            )
    return flags


def mirror_flag(rows: Mapping[str, Row]) -> str | None:
    """Return a flag if the scan looks mirrored: `mirrored`, or `mirrored_perhaps` where only the bulk speaks for it.

    The first where most of what lies on one side was found on the other. But a network that has learnt sides finds a
    spleen where it should be, whatever lies there: on a mirrored scan, the liver. So the second where the middle of
    liver and spleen taken together lies left of the body's, and either the liver's own does too or the spleen is more
    than half as large as the liver.
    """
    pairs = [*RIGHT_OF, *((one.name, one.mirror) for one in all_classes() if one.side == "right" and one.mirror)]
    x = {name: float(row["centroid_mm"][0]) for name, row in rows.items() if _is_seen(row)}
    known = [(right, left) for right, left in pairs if right in x and left in x]
    wrong = [(right, left) for right, left in known if x[right] < x[left]]
    if len(wrong) < 2 or 2 * len(wrong) <= len(known):
        return _bulk_flag(rows)
    right, left = wrong[0]
    return (
        f"mirrored: {len(wrong)} of {len(known)} pairs lie the wrong way round, such as {right} at x = {x[right]:.0f} "
        f"mm and {left} at {x[left]:.0f} mm: the scan is mirrored, or the patient has situs inversus"
    )


def _bulk_flag(rows: Mapping[str, Row]) -> str | None:
    liver, spleen = rows.get("liver"), rows.get("spleen")
    pairs = [("right_kidney", "left_kidney"), ("right_lung", "left_lung"), ("postcava", "aorta")]
    beside = next((pair for pair in pairs if _is_seen(rows.get(pair[0])) and _is_seen(rows.get(pair[1]))), None)
    if liver is None or spleen is None or beside is None or not _is_seen(liver) or not _is_seen(spleen):
        return None
    middle = sum(float(rows[name]["centroid_mm"][0]) for name in beside) / 2
    total = float(liver["ml"] + spleen["ml"])
    bulk = sum(float(row["ml"]) * float(row["centroid_mm"][0]) for row in (liver, spleen)) / total - middle
    liver_is_left = float(liver["centroid_mm"][0]) < middle
    if bulk >= 0 or not (liver_is_left or spleen["ml"] > LARGE_SPLEEN * liver["ml"]):
        return None
    return (
        f"mirrored_perhaps: liver ({liver['ml']:.0f} ml) and spleen ({spleen['ml']:.0f} ml) together lie {-bulk:.0f} "
        "mm left of the body's middle, usual right of it: the scan may be mirrored, or the spleen very large"
    )


def _is_seen(row: Row | None) -> bool:
    return row is not None and bool(row) and row["voxels"] >= LEAST_VOXELS


def _is_landmark(row: Row | None) -> bool:
    return row is not None and bool(row) and bool(row["voxels"]) and not row["touches_border"]


def _cut_axes(row: Row, quality: ScanQuality) -> list[int]:
    """Return the axes on which a mask reaches the edge of the scan."""
    box = row["bbox"]
    return [axis for axis in range(3) if box[axis] == 0 or box[axis + 3] == quality.shape[axis]]


def _scan_reaches_around(place: np.ndarray[Any, Any], reach: Sequence[float], quality: ScanQuality) -> bool:
    affine = np.array(quality.affine).reshape(4, 4)
    index = np.linalg.solve(affine[:3, :3], place - affine[:3, 3])
    margin = INSIDE_SHARE * np.array(reach) / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.all(index - margin >= 0) and np.all(index + margin <= np.array(quality.shape) - 1))
