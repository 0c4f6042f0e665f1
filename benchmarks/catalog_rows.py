"""Rows of a large catalog, generated: 32 labels a case, human ones of the own classes of its set, pseudo ones else.

Bytes are those of real rows: manifests of seven files with their hashes (740 characters an annotation), 256 sampled
positions for a class that is present. In a table built as ballast only one row in `SPARSE` has all positions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.keys import split_group
from datasets_registry.taxonomy import all_classes

DATASETS = tuple(f"set_{number:02d}" for number in range(17))
OWN_CLASSES = 6
"""Classes that a set annotates; the others are labelled by a model."""

CLASSES = all_classes()
POSITIONS = 256
SPARSE = 8


def _hex(*parts: Any) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _manifest(case_id: str, annotation: str) -> str:
    names = [f"{level}/{file}" for level in range(3) for file in ("c/0/0/0/0", "zarr.json")] + ["zarr.json"]
    files = {f"labels/{annotation}/{name}": [15_398_278, _hex(case_id, annotation, name)] for name in names}
    return json.dumps({"files": files}, separators=(",", ":"))


def make_case(number: int, version: int = 1) -> dict[str, Any]:
    """Return the row of a case, as the ingest would write it; another version has another ingest key."""
    dataset = DATASETS[number % len(DATASETS)]
    case_id = f"{dataset}/case_{number:06d}"
    content = _hex(case_id, "content")
    external = number % len(DATASETS) == 0
    return {
        "case_id": case_id,
        "dataset": dataset,
        "native_id": f"case_{number:06d}",
        "ingest_key": _hex(case_id, "key", version),
        "content_sha256": content,
        "raw_sha256": _hex(case_id, "raw"),
        "split_group": split_group(content),
        "fingerprint": _hex(case_id, "print") * 40,
        "fold": None if external else number % 5,
        "role": "external" if external else "train",
        "path": f"volumes/{case_id}/{_hex(case_id, 'key', version)[:12]}.zarr",
        **dict.fromkeys(("shape_x", "shape_y", "shape_z"), 260),
        "spacing_mm": [1.5] * 3,
        "affine": [1.5, 0, 0, -200, 0, 1.5, 0, -180, 0, 0, 1.5, float(-number), 0, 0, 0, 1],
        "original_shape": [512, 512, 300 + number % 200],
        "original_affine": [0.8, 0, 0, -200, 0, 0.8, 0, -180, 0, 0, 1.0, float(-number), 0, 0, 0, 1],
        "original_orientation": "LPS",
        **dict.fromkeys(("hu_min", "hu_max", "hu_mean", "hu_p01", "hu_p50", "hu_p99"), -100.5),
        "steps": [json.dumps({"step": "resampled", "spacing_mm": [1.5] * 3})] * 3,
        "flags": [],
        "licence": "CC-BY-4.0",
        "non_commercial": False,
        "card_digest": _hex(dataset),
        "harmoniser_version": "4",
        "source_name": dataset,
        "tumour_free": [],
        "manifest": _manifest(case_id, "image"),
    }


def make_labels(case: dict[str, Any], number: int, *, full: bool = True) -> list[dict[str, Any]]:
    """Return the 32 label rows of a case. full: positions for every present class, else for one row in `SPARSE`."""
    random = np.random.default_rng(number)
    own = {(2 * (number % len(DATASETS)) + step) % len(CLASSES) for step in range(OWN_CLASSES)}
    manifests = {name: _manifest(case["case_id"], name) for name in ("shipped", "pseudo-v3-0a1b2c3d")}
    present = random.random(len(CLASSES)) < [0.9 if info.kind == "organ" else 0.15 for info in CLASSES]
    voxels = np.where(present, random.integers(300, 400_000, len(CLASSES)), 0)
    corners = random.integers(10, 200, (len(CLASSES), 3))
    rows = []
    for info in CLASSES:
        human, index = info.channel in own, info.channel
        annotation = "shipped" if human else "pseudo-v3-0a1b2c3d"
        many = POSITIONS if full or (number + index) % SPARSE == 0 else 1
        there, corner = bool(present[index]), corners[index]
        positions = corner + random.integers(0, 50, (many, 3)) if there else np.empty((0, 3), dtype=np.int64)
        rows.append(
            {
                "case_id": case["case_id"],
                "ingest_key": case["ingest_key"],
                "class_name": info.name,
                "channel": info.channel,
                "annotation": annotation,
                "state": "annotated" if human else "pseudo",
                "label_origin": "human" if human else "model",
                "model_name": None if human else "universal",
                "model_version": None if human else "3",
                "voxels": int(voxels[index]),
                "ml": float(voxels[index]) * 0.003375,
                "hu_mean": 40.5 if there else None,
                "bbox": [*corner.tolist(), *(corner + 50).tolist()] if there else None,
                "centroid_mm": [float(value) * 1.5 for value in corner] if there else None,
                "components": int(there),
                "touches_border": False,
                "sampled_voxels": positions.ravel().tolist(),
                "quality_score": None if human else float(random.random()),
                "flow_run_id": "0f2c6b1e-7d5a-4b7e-9a53-1f0a5e6f7a8b",
                "mlflow_run_id": None if human else _hex("run")[:32],
                "manifest": manifests[annotation],
            }
        )
    return rows


def make_batch(numbers: Sequence[int]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return cases with their labels, as `Tables.commit_cases` takes them."""
    cases = [make_case(number) for number in numbers]
    return [(case, make_labels(case, number)) for case, number in zip(cases, numbers, strict=True)]
