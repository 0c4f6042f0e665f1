"""Cases of a few voxels, committed to a real lake, for the tests of training, pseudo-labels and review."""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import empty_bits, set_channel
from imaging.volume import Volume
from tasks.case_rows import label_rows
from tasks.workspace import Workspace

SHAPE = (6, 5, 4)
SPACING_MM = (2.0, 3.0, 4.0)
HU_COLUMNS = ("hu_min", "hu_max", "hu_mean", "hu_p01", "hu_p50", "hu_p99")


def commit_tiny(
    workspace: Workspace, dataset: str, native_id: str, *, fold: int, role: str = "train", **known: Any
) -> None:
    """Commit a case with one voxel of a liver (or of `shown`) at (1, 2, 3) and HU that count up along x, y, z."""
    affine = np.diag([*SPACING_MM, 1.0])
    image = Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), affine)
    bits = empty_bits(SHAPE, len(all_classes()))
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1, 2, 3] = True
    set_channel(bits, class_info(known.get("shown", "liver")).channel, mask)
    key = f"{dataset}{native_id}".encode().hex().ljust(64, "0")
    stored = workspace.lake.write_case(dataset, native_id, key, image, {}, {"shipped": bits})
    identity = {"case_id": f"{dataset}/{native_id}", "ingest_key": key}
    provenance = {
        "state": "annotated",
        "label_origin": "human",
        "manifest": stored.annotation_manifest("shipped").to_json(),
    }
    rows = label_rows(
        bits, image, known.get("classes", ("liver", "liver_tumor")), case=identity, annotation="shipped",
        sampled_voxels=4, provenance=lambda _: provenance,
    )  # fmt: skip
    case = {
        **identity, "dataset": dataset, "native_id": native_id, "content_sha256": key, "raw_sha256": key,
        "split_group": known.get("group", key[:16]), "fold": fold if role == "train" else None, "role": role,
        "path": stored.path, "manifest": stored.manifest.to_json(),
        "shape_x": SHAPE[0], "shape_y": SHAPE[1], "shape_z": SHAPE[2], "spacing_mm": list(SPACING_MM),
        "affine": affine.ravel().tolist(), "original_shape": list(SHAPE), "original_affine": affine.ravel().tolist(),
        "original_orientation": "RAS", **dict.fromkeys(HU_COLUMNS, 0.0),
        "steps": [], "flags": [], "card_digest": "c", "harmoniser_version": "1",
        "tumour_free": known.get("tumour_free", []),
    }  # fmt: skip
    workspace.tables.commit_case(case, rows)


def label_tiny(
    workspace: Workspace, case_id: str, annotation: str, masks: dict[str, tuple[int, int, int]], **made: Any
) -> None:
    """Commit an annotation with one voxel a class, pseudo-labels of version 1 unless `made` says otherwise."""
    (case,) = workspace.tables.cases(case_ids=[case_id]).to_dict("records")
    bits = empty_bits(SHAPE, len(all_classes()))
    for name, voxel in masks.items():
        mask = np.zeros(SHAPE, dtype=bool)
        mask[voxel] = True
        set_channel(bits, class_info(name).channel, mask)
    manifest = workspace.lake.write_annotation(case["path"], annotation, bits).to_json()
    provenance = {"state": "pseudo", "label_origin": "model", "model_name": "universal", "model_version": "1"}
    provenance |= {"flow_run_id": "flow-1", "decision": "accept", "review_state": "pending", "manifest": manifest}
    image = Volume(workspace.lake.open_image(case).read(), np.diag([*SPACING_MM, 1.0]))
    rows = label_rows(
        bits, image, list(masks), case={"case_id": case_id, "ingest_key": case["ingest_key"]}, annotation=annotation,
        sampled_voxels=4, provenance=lambda _: provenance | made,
    )  # fmt: skip
    workspace.tables.commit_labels(rows)
