"""OME-Zarr 0.5 metadata of images and labels, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imaging.volume import Affine

VERSION = "0.5"
SPACE = ("z", "y", "x")
LABEL_AXES = ("c", *SPACE)


def _axes(names: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"name": name, "type": "channel"} if name == "c" else {"name": name, "type": "space", "unit": "millimeter"}
        for name in names
    ]


def _dataset(path: str, affine: Affine, factor: int, lead: int) -> dict[str, Any]:
    spacing = [float(affine[axis, axis]) for axis in (2, 1, 0)]
    origin = [float(affine[axis, 3]) for axis in (2, 1, 0)]
    # The first voxel of a coarser level is centred between the fine voxels it averages.
    shifted = [o + (factor - 1) * s / 2 for o, s in zip(origin, spacing, strict=True)]
    return {
        "path": path,
        "coordinateTransformations": [
            {"type": "scale", "scale": [1.0] * lead + [s * factor for s in spacing]},
            {"type": "translation", "translation": [0.0] * lead + shifted},
        ],
    }


def image_metadata(name: str, affine: Affine, levels: int) -> dict[str, Any]:
    """Return the `ome` attribute of an image with axes z, y, x and levels "0", "1", ...

    affine: 4 x 4, axis-aligned RAS, of the finest level in array order (X, Y, Z).
    """
    datasets = [_dataset(str(level), affine, 2**level, lead=0) for level in range(levels)]
    return {
        "version": VERSION,
        "multiscales": [{"name": name, "axes": _axes(SPACE), "datasets": datasets, "type": "mean"}],
    }


def label_metadata(name: str, affine: Affine, levels: int) -> dict[str, Any]:
    """Return the `ome` attribute of class bits with axes c (words), z, y, x and as many levels as their image has."""
    datasets = [_dataset(str(level), affine, 2**level, lead=1) for level in range(levels)]
    return {
        "version": VERSION,
        "multiscales": [{"name": name, "axes": _axes(LABEL_AXES), "datasets": datasets, "type": "union"}],
        # A word is a set of classes, not one label value: there is nothing to colour by value.
        "image-label": {"colors": [], "source": {"image": "../../"}},
    }


def labels_index(names: Sequence[str]) -> dict[str, Any]:
    """Return the `ome` attribute of the group that lists an image's labels."""
    return {"version": VERSION, "labels": sorted(names)}
