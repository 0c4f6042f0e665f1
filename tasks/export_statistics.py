"""Statistics of exported masks as CSV: one line a class of the taxonomy, where an empty field is not a zero."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.taxonomy import ClassInfo, all_classes
from imaging.bits import channel_boxes, get_channel
from imaging.components import Box, box_slices
from tasks.export_subject import ExportSubject, mean_hu

COLUMNS = (
    "case_id",
    "class_name",
    "title",
    "value",
    "state",
    "model",
    "voxels",
    "ml",
    "hu_mean",
    "centroid_r_mm",
    "centroid_a_mm",
    "centroid_s_mm",
    "touches_border",
    "licence",
)
"""voxels, ml, centroid (RAS mm) and touches_border are of the exported grid; hu_mean is of the lake's, where the image
is (empty without one). A class that is labelled and absent has 0 voxels and 0 ml, and no mean or centroid; one that
nobody labelled has the state `unlabelled` and nothing else: it is not known to be absent."""


def write_statistics(subject: ExportSubject, path: Path, licence: str | None) -> None:
    """Write the statistics of a case; see `COLUMNS`. licence: of the file, where a class states none of its own."""
    boxes = channel_boxes(subject.bits)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for info in all_classes():
            writer.writerow(_row(subject, info, boxes.get(info.channel), licence))


def _row(subject: ExportSubject, info: ClassInfo, box: Box | None, licence: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case_id": subject.case_id,
        "class_name": info.name,
        "title": info.title,
        "value": info.index,
        "state": "unlabelled",
    }
    origin = subject.origins.get(info.name)
    if origin is None:
        return row
    own = licence if origin.licence is None else origin.licence.licence
    row |= {"state": origin.state, "model": origin.model or "", "licence": own or "not known"}
    if box is None:
        return row | {"voxels": 0, "ml": 0.0, "touches_border": False}
    mask = get_channel(subject.bits[(slice(None), *box_slices(box))], info.channel)
    voxels = int(np.count_nonzero(mask))
    centroid = subject.grid.affine[:3, :3] @ _centre(mask, box) + subject.grid.affine[:3, 3]
    row |= {
        "voxels": voxels,
        "ml": round(voxels * subject.voxel_ml, 6),
        "touches_border": any(box[axis] == 0 or box[axis + 3] == subject.grid.shape[axis] for axis in range(3)),
        **{f"centroid_{axis}_mm": round(float(mm), 4) for axis, mm in zip("ras", centroid, strict=True)},
    }
    hu = mean_hu(subject, info.channel)
    return row if hu is None else row | {"hu_mean": round(hu, 4)}


def _centre(mask: NDArray[np.bool_], box: Box) -> NDArray[np.float64]:
    """Return the mean voxel index of a cropped mask, counted in the whole array."""
    profiles = [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return np.array([p @ np.arange(len(p)) / p.sum() + start for p, start in zip(profiles, box[:3], strict=True)])
