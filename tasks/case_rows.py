"""Rows of the `cases` and `labels` tables, computed from what is written to the lake."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import Card
from datasets_registry.taxonomy import class_info
from imaging.statistics import channel_statistics, hu_statistics
from imaging.volume import Volume
from tasks.harmonise import HARMONISER_VERSION, HarmonisedCase


def case_row(
    harmonised: HarmonisedCase,
    card: Card,
    *,
    dataset: str,
    native_id: str,
    keys: dict[str, str],
    flags: list[str],
    stored: dict[str, str],
    flow_run_id: str | None,
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """Return the `cases` row of one scan version.

    keys: ingest_key, content_sha256, raw_sha256, split_group. stored: path (relative to the lake) and manifest (JSON).
    fingerprint: of the raw scan, as text.
    HU statistics are taken over the whole volume on the lake grid.
    """
    image = harmonised.image
    hu = hu_statistics(image.array)
    shape = image.shape
    return {
        "case_id": f"{dataset}/{native_id}",
        "dataset": dataset,
        "native_id": native_id,
        **keys,
        "fingerprint": fingerprint,
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
        "hu_min": hu.lowest,
        "hu_max": hu.highest,
        "hu_mean": hu.mean,
        "hu_p01": hu.p01,
        "hu_p50": hu.p50,
        "hu_p99": hu.p99,
        "steps": [json.dumps(step, sort_keys=True) for step in _all_steps(harmonised.geometry)],
        "flags": flags,
        "licence": card.licence.spdx,
        "non_commercial": card.licence.non_commercial,
        "tumour_free": list(card.tumour_free),
        "card_digest": card.digest(),
        "harmoniser_version": HARMONISER_VERSION,
        "source_name": card.title,
        "flow_run_id": flow_run_id,
    }


def _all_steps(geometry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was done to the scan, then the repairs of its shipped label, marked as such."""
    return [*geometry["steps"], *({**step, "of": "label"} for step in geometry.get("label_steps", []))]


def label_rows(
    bits: NDArray[np.uint32],
    image: Volume,
    class_names: Sequence[str],
    *,
    case: dict[str, str],
    annotation: str,
    sampled_voxels: int,
    provenance: Callable[[str], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return the `labels` row of each named class of one annotation of a case.

    case: case_id and ingest_key. provenance: for a class, its state, label_origin, model_name, model_version,
    split_status, quality_score, review_state, flow_run_id, manifest; those not given are null.
    An empty mask gives a row too: for `annotated` it says that the class is absent.
    """
    # Positions are drawn with a seed of the class, so that the same mask always gives the same row.
    seeds = {info.channel: info.index for info in map(class_info, class_names)}
    figures = channel_statistics(bits, image, seeds, sampled_voxels)
    rows = []
    for name in class_names:
        statistics = figures[class_info(name).channel]
        rows.append(
            {
                **case,
                "class_name": name,
                "channel": class_info(name).channel,
                "annotation": annotation,
                "voxels": statistics.voxels,
                "ml": statistics.ml,
                "hu_mean": statistics.hu_mean,
                "bbox": None if statistics.bbox is None else list(statistics.bbox),
                "centroid_mm": None if statistics.centroid_mm is None else list(statistics.centroid_mm),
                "components": statistics.components,
                "touches_border": statistics.touches_border,
                "sampled_voxels": statistics.sampled_voxels.astype(np.int32).ravel().tolist(),
                **provenance(name),
            }
        )
    return rows


def unwritten_rows(
    bits: NDArray[np.uint32], image: Volume, class_names: Sequence[str], case: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the figures of `label_rows` for masks that are judged but not stored: no annotation, nothing sampled."""
    return label_rows(
        bits,
        image,
        class_names,
        case={"case_id": case["case_id"], "ingest_key": case["ingest_key"]},
        annotation="",
        sampled_voxels=0,
        provenance=lambda _: {},
    )
