"""What one case's export is made from: masks on the scan's own grid, and what is known about each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from datasets_registry.taxonomy import ClassInfo, class_info
from imaging.bits import Bits, count_voxels
from imaging.components import bounding_box
from imaging.label_table import LabelEntry
from imaging.resample import Grid, orientation
from imaging.volume import Volume
from tasks.licences import LabelLicence

PAINT_ORDER = {"organ": 0, "vessel": 1, "cyst": 2, "tumour": 3}
"""In a file of one label a voxel, the later kind covers the earlier: the most specific class is seen."""


@dataclass(frozen=True)
class Origin:
    """Where the mask of one class comes from. state: annotated, reviewed or pseudo. model: its address, or None.

    licence: of the label; None = that of the case, which the export states as a whole.
    """

    state: str
    model: str | None = None
    licence: LabelLicence | None = None

    @property
    def algorithm(self) -> tuple[str, str] | None:
        """Name and version of the model, as DICOM has them; None where people drew the mask."""
        if self.model is None:
            return None
        name, _, version = self.model.removeprefix("models:/").rpartition("/")
        return (name, version) if name else (self.model, "unknown")


@dataclass(frozen=True, eq=False)
class ExportSubject:
    """One case to export.

    grid: the scan's own. bits: (W, X, Y, Z) on it. origins: class -> where its mask comes from, in channel order.
    image, lake_bits: the scan in HU and the masks on the lake's grid, for mean HU; None without an image.
    form: how the masks came onto the grid (`imaging.resample_masks.Form`).
    """

    case_id: str
    grid: Grid
    bits: Bits = field(repr=False)
    origins: Mapping[str, Origin]
    image: Volume | None = field(default=None, repr=False)
    lake_bits: Bits | None = field(default=None, repr=False)
    form: str = "linear"

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The classes exported, by channel."""
        return tuple(sorted((class_info(name) for name in self.origins), key=lambda info: info.index))

    @property
    def entries(self) -> list[LabelEntry]:
        """Value, name, title and colour of every class; the value is its index in the taxonomy."""
        return [LabelEntry(info.index, info.name, info.title, info.colour) for info in self.classes]

    @cached_property
    def voxels(self) -> dict[str, int]:
        """Voxels of each class on the grid."""
        counts = count_voxels(self.bits, self.bits.shape[0] * 32)
        return {info.name: int(counts[info.channel]) for info in self.classes}

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of the grid."""
        return abs(float(np.linalg.det(self.grid.affine[:3, :3]))) / 1000.0

    def described(self) -> dict[str, Any]:
        """Return what the JSON says about grid and classes."""
        return {
            "grid": {
                "shape": list(self.grid.shape),
                "affine": self.grid.affine.tolist(),
                "orientation": orientation(self.grid.affine),
                "spacing_mm": [round(step, 6) for step in self.grid.spacing_mm],
            },
            "resampled": self.form,
            "values": {str(info.index): info.name for info in self.classes},
            "classes": {
                info.name: {
                    "value": info.index,
                    "title": info.title,
                    "colour": info.colour,
                    "state": self.origins[info.name].state,
                    "model": self.origins[info.name].model,
                    "voxels": self.voxels[info.name],
                    "ml": round(self.voxels[info.name] * self.voxel_ml, 4),
                }
                for info in self.classes
            },
        }


def mean_hu(subject: ExportSubject, channel: int) -> float | None:
    """Return the mean HU under a mask on the lake's grid, where the image is; None without an image or a mask."""
    if subject.image is None or subject.lake_bits is None:
        return None
    word = subject.lake_bits[channel // 32] & (np.uint32(1) << np.uint32(channel % 32))
    box = bounding_box(word)
    if box is None:
        return None
    inside = word[box[0] : box[3], box[1] : box[4], box[2] : box[5]] != 0
    values = subject.image.array[box[0] : box[3], box[1] : box[4], box[2] : box[5]][inside]
    return float(values.mean(dtype=np.float64))
