"""The tables: every column with its type, unit and meaning. Rows are appended and superseded, never edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 5
"""Raised with every column added: 1 the first, 2 twins, 3 withdrawn cases, 4 splits, 5 judged labels, promotions."""

TEXT, INT, LONG, REAL, FLAG = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
TEXTS, INTS, REALS = pa.list_(TEXT), pa.list_(INT), pa.list_(REAL)


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, unit ("" for none), meaning, and whether a row may leave it out (null)."""

    type: pa.DataType
    unit: str
    meaning: str
    optional: bool = False


def _maybe(type_: pa.DataType, unit: str, meaning: str) -> Column:
    return Column(type_, unit, meaning, optional=True)


_FILLED = {
    "committed_at": Column(TIME, "UTC", "when the row was committed; filled in when left out"),
    "schema_version": Column(INT, "", "version of this schema the row was written with; filled in"),
}
_REVISION = {"revision": Column(INT, "", "1, 2, ... per key of the table, filled in; the highest is the current row")}

CASES: dict[str, Column] = {
    "case_id": Column(TEXT, "", "<dataset>/<native id>"),
    "dataset": Column(TEXT, "", "id of the data set's card"),
    "native_id": Column(TEXT, "", "the data set's own name of the scan, or a pseudonym"),
    "ingest_key": Column(TEXT, "", "hash of raw bytes, card, harmoniser version and grid"),
    "content_sha256": Column(TEXT, "", "hash of the decoded voxels and geometry of the raw scan, RAS"),
    "raw_sha256": Column(TEXT, "", "hash of the raw files' bytes"),
    "split_group": Column(
        TEXT,
        "",
        "scans that must stay on one side of every split share it; as written: of equal "
        "voxels, as `Tables.cases()` shows it: joined by the table `twins`",
    ),
    "fingerprint": _maybe(TEXT, "base64", "figures of every slice (imaging/fingerprint.py); null: too few show a body"),
    "fold": _maybe(
        INT,
        "",
        "0-4: cross-validation, 5: test; null for a scan that never enters training or was not dealt yet; as "
        "`Tables.cases()` shows it: from the table `splits`; as written: null, up to schema 3 0-4 with 0 for the test",
    ),
    "role": Column(TEXT, "", "train or external"),
    "path": Column(TEXT, "", "folder of the case, relative to the lake's root"),
    "shape_x": Column(INT, "voxel", "lake grid, towards Right"),
    "shape_y": Column(INT, "voxel", "lake grid, towards Anterior"),
    "shape_z": Column(INT, "voxel", "lake grid, towards Superior"),
    "spacing_mm": Column(REALS, "mm", "lake grid, X Y Z"),
    "affine": Column(REALS, "mm", "4 x 4 by rows, lake voxel index to RAS"),
    "original_shape": Column(INTS, "voxel", "raw scan, in its own axis order"),
    "original_affine": Column(REALS, "mm", "4 x 4 by rows, raw voxel index to RAS"),
    "original_orientation": Column(TEXT, "", "where the raw scan's axes point, e.g. LPS"),
    "hu_min": Column(REAL, "HU", "smallest value on the lake grid"),
    "hu_max": Column(REAL, "HU", "largest value"),
    "hu_mean": Column(REAL, "HU", "mean value"),
    "hu_p01": Column(REAL, "HU", "1st percentile"),
    "hu_p50": Column(REAL, "HU", "median"),
    "hu_p99": Column(REAL, "HU", "99th percentile"),
    "steps": Column(TEXTS, "JSON", "what was done to the scan, then (`of`: label) to its label, oldest first"),
    "flags": Column(TEXTS, "", "warnings: accepted, but worth a look"),
    "licence": _maybe(TEXT, "SPDX", "licence of the scan; null = not known"),
    "non_commercial": _maybe(FLAG, "", "whether the licence forbids commercial use; null = not known"),
    "card_digest": Column(TEXT, "", "hash of the data set's card"),
    "harmoniser_version": Column(TEXT, "", "version of the code that made the voxels"),
    "source_name": _maybe(TEXT, "", "which of the card's sources the scan came from"),
    "tumour_free": Column(TEXTS, "class name", "lesion classes the data set states to be absent"),
    "manifest": Column(TEXT, "JSON", "files of the case, their bytes and SHA-256"),
    "flow_run_id": _maybe(TEXT, "", "Prefect flow run that wrote the row"),
    "withdrawn": _maybe(TEXT, "", "why the case must not be used; null = in use"),
    "withdrawn_at": _maybe(TIME, "UTC", "when it was withdrawn; null = in use"),
    **_REVISION,
    **_FILLED,
}

LABELS: dict[str, Column] = {
    "case_id": Column(TEXT, "", "<dataset>/<native id>"),
    "ingest_key": Column(TEXT, "", "version of the case the label lies on"),
    "class_name": Column(TEXT, "", "name in the taxonomy"),
    "channel": Column(INT, "", "bit of the class, counted from 0"),
    "annotation": Column(TEXT, "", "folder of the bits, labels/<annotation>/"),
    "state": Column(TEXT, "", "annotated or pseudo; unlabelled = no row"),
    "label_origin": Column(TEXT, "", "human or model"),
    "model_name": _maybe(TEXT, "", "model that made the label; null for human labels"),
    "model_version": _maybe(TEXT, "", "its version"),
    "voxels": Column(LONG, "voxel", "0 = looked for and absent"),
    "ml": Column(REAL, "ml", "volume"),
    "hu_mean": _maybe(REAL, "HU", "mean of the scan under the mask; null when absent"),
    "bbox": _maybe(INTS, "voxel", "x0 y0 z0 x1 y1 z1, half-open; null when absent"),
    "centroid_mm": _maybe(REALS, "mm", "RAS; null when absent"),
    "components": Column(INT, "", "connected parts"),
    "touches_border": Column(FLAG, "", "whether it reaches the edge of the scan"),
    "sampled_voxels": Column(INTS, "voxel", "x y z x y z ... of voxels to centre patches on"),
    "split_status": _maybe(TEXT, "", "how left and right were told apart; null = the data set tells"),
    "quality_score": _maybe(REAL, "0-1", "of a pseudo-label; null = not scored"),
    "scores": _maybe(TEXT, "JSON", "every score of a pseudo-label by name; null = not scored"),
    "expected_dsc": _maybe(REAL, "0-1", "DSC to be expected by the calibration; null = not calibrated"),
    "decision": _maybe(TEXT, "", "of the factory: accept, review or reject; null = not judged"),
    "reason": _maybe(TEXT, "", "of the decision, in words"),
    "cleaning": _maybe(TEXT, "JSON", "rules applied to the mask, and the voxels each took away and added"),
    "independent": _maybe(FLAG, "", "whether the model had not seen the scan; null = not known, or no model"),
    "licence": _maybe(TEXT, "SPDX", "strictest of the scan's and the model's; null = that of the case"),
    "non_commercial": _maybe(FLAG, "", "whether that licence forbids commercial use; null = not known"),
    "review_state": _maybe(TEXT, "", "pending until somebody looked, or reviewed as it was committed; null = human"),
    "flow_run_id": _maybe(TEXT, "", "Prefect flow run that wrote the row"),
    "mlflow_run_id": _maybe(TEXT, "", "MLflow run that trained the model"),
    "manifest": Column(TEXT, "JSON", "files of the annotation, their bytes and SHA-256"),
    **_REVISION,
    **_FILLED,
}

QUARANTINE: dict[str, Column] = {
    "dataset": Column(TEXT, "", "id of the data set's card"),
    "native_id": Column(TEXT, "", "the scan that was refused"),
    "code": Column(TEXT, "", "kind of fault, stable"),
    "where": Column(TEXT, "", "data set, case, file, field"),
    "found": Column(TEXT, "", "what was found"),
    "expected": Column(TEXT, "", "what was expected"),
    "remedy": Column(TEXT, "", "what to do"),
    "retry": _maybe(TEXT, "", "command that tries again; FOLDER stands for a path that could name a patient"),
    "raw_sha256": _maybe(TEXT, "", "hash of the raw files' bytes; null where they could not be read"),
    "flow_run_id": _maybe(TEXT, "", "Prefect flow run that wrote the row"),
    **_FILLED,
}

RUNS: dict[str, Column] = {
    "run_id": Column(TEXT, "", "id of the run in the factory"),
    "kind": Column(TEXT, "", "ingest, train, evaluate, pseudo_label, promote ..."),
    "flow_run_id": _maybe(TEXT, "", "Prefect flow run"),
    "mlflow_run_id": _maybe(TEXT, "", "MLflow run"),
    "model_version": _maybe(TEXT, "", "model version made or used"),
    "started": Column(TIME, "UTC", "start"),
    "ended": _maybe(TIME, "UTC", "end; null while it runs"),
    "outcome": Column(TEXT, "", "running, done, failed, refused"),
    "counts": Column(TEXT, "JSON", "cases done, skipped, quarantined ..."),
    "table_versions": Column(TEXT, "JSON", "versions of the tables the run read"),
    "evidence": _maybe(TEXT, "JSON", "SHA-256 of what others rely on, by name: of an evaluation, its scores and facts"),
    **_REVISION,
    **_FILLED,
}

TWINS: dict[str, Column] = {
    "group_a": Column(TEXT, "", "a split group as written; the smaller of the two"),
    "group_b": Column(TEXT, "", "another one, of the same scan"),
    "how": Column(TEXT, "", "content or declared"),
    "case_a": Column(TEXT, "", "a scan of group_a that shows it"),
    "case_b": Column(TEXT, "", "a scan of group_b that shows it"),
    "distance": _maybe(REAL, "", "of their fingerprints, 0: the same; null where declared"),
    "flow_run_id": _maybe(TEXT, "", "Prefect flow run that wrote the row"),
    **_FILLED,
}

SPLITS: dict[str, Column] = {
    "case_id": Column(TEXT, "", "the case that was dealt; once, for good"),
    "split_group": Column(TEXT, "", "its split group then, as `Tables.cases()` showed it"),
    "fold": Column(INT, "", "0-4: cross-validation, 5: test"),
    **_FILLED,
}

LABEL_EVENTS: dict[str, Column] = {
    "event_id": Column(TEXT, "", "unique; an event again changes nothing"),
    "case_id": Column(TEXT, "", "<dataset>/<native id>"),
    "ingest_key": Column(TEXT, "", "version of the case the label lies on"),
    "class_name": Column(TEXT, "", "name in the taxonomy"),
    "annotation": Column(TEXT, "", "the annotation the event is about"),
    "event": Column(TEXT, "", "retracted, restored, accepted, rejected"),
    "who": Column(TEXT, "", "name of the person or command, as given"),
    "why": Column(TEXT, "", "reason, in words"),
    "run_id": _maybe(TEXT, "", "run that a retraction undoes"),
    **_FILLED,
}

PROMOTIONS: dict[str, Column] = {
    "move_id": Column(TEXT, "", "unique; a move again changes nothing"),
    "model_name": Column(TEXT, "", "registered model"),
    "move": Column(TEXT, "", "promoted, refused, rolled_back, asked, approved, declined"),
    "version": Column(TEXT, "", "the version that was to become champion"),
    "champion_before": _maybe(TEXT, "", "version that was champion before; null: none"),
    "champion_after": _maybe(TEXT, "", "version that was champion after; null: none"),
    "who": Column(TEXT, "", "name of the person or schedule, as given"),
    "why": Column(TEXT, "", "reason, in words"),
    "gates": Column(TEXT, "JSON", "every gate: value, bar, verdict"),
    "mlflow_run_id": _maybe(TEXT, "", "evaluation that the gates read"),
    "flow_run_id": _maybe(TEXT, "", "Prefect flow run"),
    **_FILLED,
}

TABLES: dict[str, dict[str, Column]] = {
    "cases": CASES,
    "labels": LABELS,
    "quarantine": QUARANTINE,
    "runs": RUNS,
    "twins": TWINS,
    "splits": SPLITS,
    "label_events": LABEL_EVENTS,
    "promotions": PROMOTIONS,
}
KEYS = {
    "cases": ("case_id",),
    "labels": ("case_id", "ingest_key", "annotation"),
    "quarantine": ("dataset", "native_id", "raw_sha256", "code"),
    "runs": ("run_id",),
    "twins": ("group_a", "group_b", "how"),
    "splits": ("case_id",),
    "label_events": ("event_id",),
    "promotions": ("move_id",),
}
"""Columns that say what a row is of: rows of one key supersede each other, by `revision` where there is one."""

NAMED_BY = {
    "cases": "case_id",
    "labels": "case_id",
    "quarantine": "native_id",
    "runs": "run_id",
    "twins": "group_a",
    "splits": "case_id",
    "label_events": "case_id",
    "promotions": "model_name",
}
"""The column of the key by which a writer looks up what is there: few rows have one value."""

FILLED_IN = ("committed_at", "schema_version", "revision")


@cache
def arrow_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a table; unit and meaning are in each field's metadata. KeyError for other names."""
    fields = [
        pa.field(name, column.type, column.optional, {"unit": column.unit, "meaning": column.meaning})
        for name, column in TABLES[table].items()
    ]
    return pa.schema(fields)


def describe(table: str) -> str:
    """Return one line per column: name, type, unit, meaning."""
    lines = []
    for name, column in TABLES[table].items():
        unit = f" [{column.unit}]" if column.unit else ""
        lines.append(f"{name}: {column.type}{', may be null' if column.optional else ''}{unit}: {column.meaning}")
    return "\n".join(lines)


def key_of(table: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values of a row in the key of its table."""
    return tuple(row.get(name) for name in KEYS[table])


@cache
def _needed(table: str) -> list[str]:
    columns = TABLES[table]
    return sorted(name for name, column in columns.items() if not column.optional and name not in FILLED_IN)


def check_row(table: str, row: Mapping[str, Any]) -> None:
    """Raise ValueError that names columns a row must have and lacks, or has and the table does not know."""
    needed = _needed(table)
    missing = [name for name in needed if row.get(name) is None]
    unknown = sorted(row.keys() - TABLES[table].keys())
    if missing or unknown:
        name = row.get("case_id") or row.get("run_id") or row.get("native_id")
        raise ValueError(
            f"table {table}, row {name}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}, "
            f"expected the columns of catalog/schema.py; fill or rename them"
        )


def arrow_rows(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as an Arrow table of the table's schema; ValueError where a value does not fit its column."""
    schema = arrow_schema(table)
    for row in rows:
        check_row(table, {name: value for name, value in row.items() if name not in FILLED_IN})
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"table {table}: {error}, expected the types of catalog/schema.py") from error
