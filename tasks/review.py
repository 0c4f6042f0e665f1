"""Commit a mask that a reviewer corrected: a new annotation beside those that are there, reviewed by a person."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from catalog.label_decisions import standing_retractions
from datasets_registry.taxonomy import class_info
from imaging.volume import Volume
from tasks.case_rows import label_rows
from tasks.review_mask import read_mask
from tasks.workspace import Workspace, row_dicts

KIND = "review"
"""Kind of the run that an import leaves in the table `runs`."""


@dataclass(frozen=True)
class Imported:
    """What an import made. new: rows that were not there already. ml: of each class, 0 where it is absent."""

    case_id: str
    annotation: str
    run_id: str
    new: int
    ml: dict[str, float]
    retracted: tuple[str, ...] = ()


def import_mask(
    workspace: Workspace, case_id: str, file: Path, classes: Sequence[str], *, who: str, why: str
) -> Imported:
    """Commit the corrected masks of some classes of a case, and return what was made.

    The rows say state pseudo, label origin human, review state reviewed: they go before every mask of a model and
    behind what annotators drew. Equal masks have an equal name, so a second import adds nothing; its run can be
    retracted like a model's. file: see `tasks.review_mask.read_mask`, which also refuses.
    KeyError for an unknown case, ValueError for a class that annotators drew there: their label stays the one that
    counts, so a correction would never be seen.
    """
    tables = workspace.tables
    found = tables.cases(case_ids=[case_id])
    if found.empty:
        raise KeyError(f"unknown case {case_id!r}; `ctfactory catalog query` lists them")
    if not why.strip():
        raise ValueError(f"review of {case_id}: found no reason, expected why; it is kept with the labels")
    (case,) = row_dicts(found)
    names = tuple(dict.fromkeys(class_info(name).name for name in classes))
    if not names:
        raise ValueError(f"review of {case_id}: found no class, expected those that were looked at")
    human = set(tables.labels(case_ids=[case_id], state="annotated", columns=["class_name"])["class_name"])
    if drawn := [name for name in names if name in human]:
        raise ValueError(
            f"{case_id}: annotators drew {', '.join(drawn)} there, and a human label is never replaced; leave it out "
            "of --classes, or withdraw the case where the label is wrong"
        )
    started = datetime.now(UTC)
    read = tables.versions()
    bits = read_mask(file, case, names, workspace.lake)
    digest = hashlib.sha256(json.dumps([sorted(names), case["ingest_key"]]).encode() + bits.tobytes(order="C"))
    annotation = f"review-{digest.hexdigest()[:16]}"
    stored = workspace.lake.open_image(case)
    manifest = workspace.lake.write_annotation(
        case["path"], annotation, bits, {"reviewed_by": who, "classes": list(names)}
    )
    rows = label_rows(
        bits,
        Volume(stored.read(), stored.affine),
        names,
        case={"case_id": case_id, "ingest_key": case["ingest_key"]},
        annotation=annotation,
        sampled_voxels=workspace.settings.sampled_voxels,
        provenance=lambda _: {
            "state": "pseudo",
            "label_origin": "human",
            "review_state": "reviewed",
            "reason": f"{who}: {why.strip()}",
            "licence": case["licence"],
            "non_commercial": case["non_commercial"],
            "flow_run_id": annotation,
            "manifest": manifest.to_json(),
        },
    )
    new = tables.commit_labels(rows)
    _record(workspace, annotation, started, read, {"case": case_id, "labels": new})
    return Imported(
        case_id,
        annotation,
        annotation,
        new,
        {row["class_name"]: float(row["ml"]) for row in rows},
        tuple(standing_retractions(tables, annotation)["class_name"]),
    )


def _record(
    workspace: Workspace, run_id: str, started: datetime, read: dict[str, int], counts: dict[str, object]
) -> None:
    """Leave a row in `runs`; one import again is the same run, by its name."""
    if (workspace.tables.runs(KIND)["run_id"] == run_id).any():
        return
    workspace.tables.record_run(
        {
            "run_id": run_id,
            "kind": KIND,
            "flow_run_id": None,
            "mlflow_run_id": None,
            "model_version": None,
            "started": started,
            "ended": datetime.now(UTC),
            "outcome": "done",
            "counts": json.dumps(counts),
            "table_versions": json.dumps(read),
        }
    )
