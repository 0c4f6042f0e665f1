"""What tests of lake and tables are made of: `make_scan()` and `make_label()` of a few voxels, `make_case_row()` and
`make_label_row()` as the ingest would write them, and a `Clock` of their own.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.keys import case_id, ingest_key, split_group
from catalog.lake_write import StoredCase
from datasets_registry.taxonomy import class_info
from imaging.volume import Volume

SHAPE = (5, 37, 66)  # one, two and three chunks along X, Y, Z
AFFINE = np.array([[0.8, 0, 0, -11], [0, 1.5, 0, 20.5], [0, 0, 2.5, -300], [0, 0, 0, 1]])
GEOMETRY = {"original_shape": [37, 5, 66], "original_orientation": "PLS", "original_affine": np.eye(4)}


class Clock:
    """A clock that moves one second at each look."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def make_scan(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Volume:
    values = np.random.default_rng(seed).integers(-1024, 1500, shape, dtype=np.int16)
    return Volume(values, AFFINE).with_step("resampled", spacing_mm=[0.8, 1.5, 2.5])


def make_label(seed: int = 0, words: int = 1, shape: tuple[int, int, int] = SHAPE) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 2**31, (words, *shape), dtype=np.uint32)


def make_case_row(dataset: str, native_id: str, stored: StoredCase | None = None, **changes: Any) -> dict[str, Any]:
    content = hashlib.sha256(f"{dataset}/{native_id}".encode()).hexdigest()
    row = {
        "case_id": case_id(dataset, native_id),
        "dataset": dataset,
        "native_id": native_id,
        "ingest_key": ingest_key("raw", "card", "1", (0.8, 1.5, 2.5)),
        "content_sha256": content,
        "raw_sha256": "raw",
        "split_group": split_group(content),
        "fold": 0,
        "role": "train",
        "path": stored.path if stored else f"volumes/{dataset}/{native_id}/x.zarr",
        "shape_x": SHAPE[0],
        "shape_y": SHAPE[1],
        "shape_z": SHAPE[2],
        "spacing_mm": [0.8, 1.5, 2.5],
        "affine": AFFINE.ravel().tolist(),
        "original_shape": [37, 5, 66],
        "original_affine": np.eye(4).ravel().tolist(),
        "original_orientation": "PLS",
        **dict.fromkeys(("hu_min", "hu_max", "hu_mean", "hu_p01", "hu_p50", "hu_p99"), 0.0),
        "steps": [],
        "flags": [],
        "card_digest": "card",
        "harmoniser_version": "1",
        "tumour_free": [],
        "manifest": stored.manifest.to_json() if stored else '{"files":{}}',
    }
    return {**row, **changes}


def make_label_row(
    case_row: dict[str, Any], class_name: str, annotation: str = "human", **changes: Any
) -> dict[str, Any]:
    row = {
        "case_id": case_row["case_id"],
        "ingest_key": case_row["ingest_key"],
        "class_name": class_name,
        "channel": class_info(class_name).channel,
        "annotation": annotation,
        "state": "annotated" if annotation == "human" else "pseudo",
        "label_origin": "human" if annotation == "human" else "model",
        "voxels": 8,
        "ml": 0.024,
        "bbox": [0, 0, 0, 2, 2, 2],
        "centroid_mm": [-10.6, 21.25, -298.75],
        "components": 1,
        "touches_border": True,
        "sampled_voxels": [0, 0, 0, 1, 1, 1],
        "manifest": '{"files":{}}',
    }
    return {**row, **changes}
