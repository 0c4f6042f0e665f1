"""Rows of the `cases` and `labels` tables, computed from what is written to the lake."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.components import mask_statistics
from imaging.volume import Volume
from tasks.harmonise import HARMONISER_VERSION, HarmonisedCase


def case_row(
    harmonised: HarmonisedCase,
    card: Card,
    *,
    dataset: str,
    native_id: str,
    keys: dict[str, str],
    fold: int,
    flags: list[str],
    stored: dict[str, str],
    flow_run_id: str | None,
) -> dict[str, Any]:
    """Return the `cases` row of one scan version.

    keys: ingest_key, content_sha256, raw_sha256, split_group. stored: path (relative to the lake) and manifest (JSON).
    HU statistics are taken over the whole volume on the lake grid.
    """
    image = harmonised.image
    p01, p50, p99 = np.percentile(image.array, [1, 50, 99])
    shape = image.shape
    return {
        "case_id": f"{dataset}/{native_id}",
        "dataset": dataset,
        "native_id": native_id,
        **keys,
        "fold": fold if card.role == "train" else None,
        "role": card.role,
        **stored,
        "shape_x": shape[0],
        "shape_y": shape[1],
        "shape_z": shape[2],
        "spacing_mm": list(image.spacing_mm),
        "affine": image.affine.ravel().tolist(),
        "original_shape": harmonised.geometry["original_shape"],
        "original_affine": harmonised.geometry["original_affine"],
        "original_orientation": harmonised.geometry["original_orientation"],
        "hu_min": float(image.array.min()),
        "hu_max": float(image.array.max()),
        "hu_mean": float(image.array.mean()),
        "hu_p01": float(p01),
        "hu_p50": float(p50),
        "hu_p99": float(p99),
        "steps": [json.dumps(step, sort_keys=True) for step in harmonised.geometry["steps"]],
        "flags": flags,
        "licence": card.licence.spdx,
        "non_commercial": card.licence.non_commercial,
        "tumour_free": list(card.tumour_free),
        "card_digest": card.digest(),
        "harmoniser_version": HARMONISER_VERSION,
        "source_name": card.title,
        "flow_run_id": flow_run_id,
    }


def label_row(
    bits: NDArray[np.uint32],
    image: Volume,
    class_name: str,
    *,
    case: dict[str, str],
    annotation: str,
    sampled_voxels: int,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Return the `labels` row of one class of one annotation of a case.

    case: case_id and ingest_key. provenance: state, label_origin, model_name, model_version, split_status,
    quality_score, review_state, flow_run_id, manifest; those not given are null.
    An empty mask gives a row too: for `annotated` it says that the class is absent.
    """
    info = class_info(class_name)
    # Positions are drawn with a seed of the class, so that the same mask always gives the same row.
    statistics = mask_statistics(get_channel(bits, info.channel), image.affine, sample=sampled_voxels, seed=info.index)
    return {
        **case,
        "class_name": class_name,
        "channel": info.channel,
        "annotation": annotation,
        "voxels": statistics.voxels,
        "ml": statistics.ml,
        "bbox": None if statistics.bbox is None else list(statistics.bbox),
        "centroid_mm": None if statistics.centroid_mm is None else list(statistics.centroid_mm),
        "components": statistics.components,
        "touches_border": statistics.touches_border,
        "sampled_voxels": statistics.sampled_voxels.astype(np.int32).ravel().tolist(),
        **provenance,
    }


def volume_flags(rows: list[dict[str, Any]], voxel_ml: float) -> list[str]:
    """Return a remark for every non-empty organ whose volume lies outside the taxonomy's adult range.

    A scan that ends inside the organ is not remarked on; one voxel of tolerance on the lower bound.
    """
    flags = []
    for row in rows:
        low, high = class_info(row["class_name"]).volume_ml
        if row["voxels"] and not row["touches_border"] and not low - voxel_ml <= row["ml"] <= high:
            flags.append(f"{row['class_name']}: {row['ml']:.1f} ml lies outside {low:g} to {high:g} ml")
    return flags
