"""One case by the protocol of a challenge: its label map on the ORIGINAL grid of the scan, scored region by region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import load_card
from datasets_registry.layouts import CaseFiles, raw_digest, reader_for
from datasets_registry.taxonomy import class_info
from imaging.bits import Bits
from imaging.layers import paint
from imaging.metrics import score_masks
from imaging.nifti import write_nifti
from imaging.resample import Grid
from imaging.resample_masks import resample_masks
from imaging.volume import Volume
from tasks.evaluate_case import FIGURES, CaseRequest, annotated_labels, case_masks, strata_of, truth_bits
from tasks.evaluation_store import EvaluationStore, prediction_key, score_key
from tasks.export import original_grid
from tasks.protocol import Protocol
from tasks.settings import Settings
from tasks.workspace import open_workspace

RAW, LAKE = "raw labels", "lake labels, resampled"
"""Where the truth came from: the data set's own files, or the lake's masks brought back to the original grid."""

NO_TOLERANCE_MM = 1.0
"""NSD of a protocol without one; its column is dropped."""


@dataclass(frozen=True)
class ProtocolRequest:
    """A case, the protocol, the raw files that hold its truth (None: the lake's), and where its label map is written.

    scored: whether annotators drew anything in it.
    """

    case: CaseRequest
    protocol: Protocol
    raw: CaseFiles | None
    submission: Path | None
    scored: bool


def painted(bits: Bits, protocol: Protocol) -> NDArray[Any]:
    """Return the label map (X, Y, Z) of a challenge from class bits: values in order, a higher one on top."""
    order = sorted(protocol.labels.items())
    return paint(bits, {class_info(name).channel: value for value, label in order for name in label.classes})


def label_map(bits: Bits, case: Mapping[str, Any], protocol: Protocol) -> Volume:
    """Return the label map of a case on the grid its scan was read on; bits (W, X, Y, Z) lie on the lake grid."""
    grid = original_grid(dict(case))
    affine = np.asarray(case["affine"], dtype=float).reshape(4, 4)
    return Volume(painted(resample_masks(bits, affine, grid), protocol), grid.affine)


def evaluate_protocol_case(request: ProtocolRequest, settings: Settings) -> list[dict[str, Any]]:
    """Return one row for each region whose classes annotators looked for: figures on the original grid.

    The label map that is scored is the one a submission holds, and is written there. Rows are kept like those of an
    evaluation. Raises ValueError where the raw files are not those of the case.
    """
    case, protocol = request.case.case, request.protocol
    if request.raw is not None:
        _require_same(request.raw, case)
    masks_key = prediction_key(request.case.weights, case, settings)
    store = EvaluationStore(settings)
    predicted: Volume | None = None
    if request.submission is not None:
        predicted = label_map(case_masks(request.case, settings).bits, case, protocol)
        request.submission.mkdir(parents=True, exist_ok=True)
        write_nifti(predicted, request.submission / protocol.submission.name(str(case["native_id"])))
    if not request.scored:
        return []
    workspace = open_workspace(settings)
    labels = annotated_labels(workspace, case)
    truth_is = RAW if request.raw is not None else LAKE
    about = {"truth": truth_is, "protocol": protocol.model_dump_json(), "raw": str(case["raw_sha256"])}
    manifests = dict(zip(labels["class_name"], labels["manifest"], strict=True))
    key = score_key(masks_key, {**manifests, **about}, [], settings)
    kept = store.scores(key)
    if kept is not None:
        rows: list[dict[str, Any]] = kept["rows"]
        return rows
    if predicted is None:
        predicted = label_map(case_masks(request.case, settings).bits, case, protocol)
    if request.raw is not None:
        truth = _raw_label(request.raw, case, protocol)
    else:
        shape = (int(case["shape_x"]), int(case["shape_y"]), int(case["shape_z"]))
        truth = label_map(truth_bits(workspace, labels, shape), case, protocol)
    rows = _score_regions(truth, predicted, set(labels["class_name"]), protocol)
    strata = {name: strata_of(case)[name] for name in ("patient", "slice_mm")}
    rows = [{"case_id": case["case_id"], **row, "truth": truth_is, **strata} for row in rows]
    store.keep_scores(key, {"rows": rows})
    return rows


def _require_same(files: CaseFiles, case: Mapping[str, Any]) -> None:
    if raw_digest(files) != case["raw_sha256"]:
        raise ValueError(
            f"{case['case_id']}: its raw files differ from those ingested (SHA-256 {str(case['raw_sha256'])[:12]} "
            "expected); give the folder it was ingested from with --raw, or ingest it again"
        )


def _raw_label(files: CaseFiles, case: Mapping[str, Any], protocol: Protocol) -> Volume:
    """Return the label map of a case as its data set ships it."""
    card = load_card(protocol.dataset)
    read = reader_for(card).read_case(files, card)
    grid = original_grid(dict(case))
    if read.label is None:
        raise ValueError(f"{case['case_id']}: the raw files hold no label, but the lake has one; leave out --raw")
    if read.label.shape != grid.shape or not np.allclose(read.label.affine, grid.affine, atol=1e-3):
        raise ValueError(
            f"{case['case_id']}: the raw label lies on a grid of {read.label.shape}, the scan on one of {grid.shape}; "
            "ingest it again"
        )
    return read.label


def _score_regions(truth: Volume, predicted: Volume, annotated: set[str], protocol: Protocol) -> list[dict[str, Any]]:
    spacing = Grid.of(predicted).spacing_mm
    rows = []
    for region in protocol.regions:
        needed = {name for value in region.values for name in protocol.labels[value].classes}
        if not needed <= annotated:
            continue
        masks = [np.isin(volume.array, region.values) for volume in (truth, predicted)]
        found = asdict(score_masks(masks[0], masks[1], spacing, protocol.tolerance_mm or NO_TOLERANCE_MM))
        rows.append({"region": region.name, **{name: found[name] for name in (*FIGURES, "truth_ml", "predicted_ml")}})
    return rows
