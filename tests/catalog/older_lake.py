"""Make the tables of a lake as schema version 1 wrote them, by deltalake alone: `python older_lake.py FILE.tar.gz`.

tests/data/lake_schema_1.tar.gz was made so. It is kept as it is: a lake that is written anew by later libraries is not
an older lake. Labels had no revisions then, cases no fingerprint, refusals no `retry`; there was no table `twins`.
Version 1 of `cases` and of `labels` holds kits/case_1 with liver and spleen; version 2 another version of it, which
has a liver only, and ward/case_9, an external scan without labels. A training run read version 1 of both.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

TYPES = {
    "text": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "real": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
    "texts": pa.list_(pa.string()),
    "ints": pa.list_(pa.int32()),
    "reals": pa.list_(pa.float64()),
}
COLUMNS = {
    "cases": """case_id:text dataset:text native_id:text ingest_key:text content_sha256:text raw_sha256:text
        split_group:text fold:int? role:text path:text shape_x:int shape_y:int shape_z:int spacing_mm:reals
        affine:reals original_shape:ints original_affine:reals original_orientation:text hu_min:real hu_max:real
        hu_mean:real hu_p01:real hu_p50:real hu_p99:real steps:texts flags:texts licence:text? non_commercial:flag?
        card_digest:text harmoniser_version:text source_name:text? tumour_free:texts manifest:text flow_run_id:text?
        revision:int committed_at:time schema_version:int""",
    "labels": """case_id:text ingest_key:text class_name:text channel:int annotation:text state:text label_origin:text
        model_name:text? model_version:text? voxels:long ml:real bbox:ints? centroid_mm:reals? components:int
        touches_border:flag sampled_voxels:ints split_status:text? quality_score:real? review_state:text?
        flow_run_id:text? mlflow_run_id:text? manifest:text committed_at:time schema_version:int""",
    "quarantine": """dataset:text native_id:text code:text where:text found:text expected:text remedy:text
        raw_sha256:text? flow_run_id:text? committed_at:time schema_version:int""",
    "runs": """run_id:text kind:text flow_run_id:text? mlflow_run_id:text? model_version:text? started:time ended:time?
        outcome:text counts:text table_versions:text revision:int committed_at:time schema_version:int""",
}
"""Name and type of every column of version 1; with a question mark what may be null."""

CONFIGURATION = {
    "delta.appendOnly": "true",
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
FILLED = {"committed_at": MOMENT, "schema_version": 1}


def _schema(table: str) -> pa.Schema:
    fields = []
    for word in COLUMNS[table].split():
        name, _, kind = word.partition(":")
        words = {"unit": "", "meaning": f"{name} as version 1 described it"}
        fields.append(pa.field(name, TYPES[kind.rstrip("?")], kind.endswith("?"), words))
    return pa.schema(fields)


def _case(case_id: str, key: str, revision: int, **changes: Any) -> dict[str, Any]:
    dataset, native_id = case_id.split("/")
    return {
        "case_id": case_id,
        "dataset": dataset,
        "native_id": native_id,
        "ingest_key": key,
        "content_sha256": "c",
        "raw_sha256": "r",
        "split_group": native_id,
        "fold": 3,
        "role": "train",
        "original_orientation": "LPS",
        "path": f"volumes/{case_id}/{key}.zarr",
        "spacing_mm": [0.8, 1.5, 2.5],
        "affine": [0.0] * 16,
        **dict.fromkeys(("shape_x", "shape_y", "shape_z"), 5),
        "original_shape": [5, 5, 5],
        "original_affine": [0.0] * 16,
        "steps": [],
        "flags": [],
        "tumour_free": [],
        **dict.fromkeys(("hu_min", "hu_max", "hu_mean", "hu_p01", "hu_p50", "hu_p99"), 0.0),
        "card_digest": "card",
        "harmoniser_version": "1",
        "manifest": '{"files":{}}',
        "revision": revision,
        **FILLED,
        **changes,
    }


def _label(case_id: str, key: str, class_name: str, channel: int) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "ingest_key": key,
        "class_name": class_name,
        "channel": channel,
        "voxels": 8,
        "annotation": "shipped",
        "state": "annotated",
        "label_origin": "human",
        "ml": 0.024,
        "components": 1,
        "touches_border": False,
        "sampled_voxels": [0, 0, 0],
        "manifest": '{"files":{}}',
        **FILLED,
    }


def make_lake(root: Path) -> None:
    """Write the tables below `root`."""
    one, other = "1" * 64, "2" * 64
    refusal = dict.fromkeys(("where", "found", "expected", "remedy"), "x")
    run = {"run_id": "r1", "kind": "train", "started": MOMENT, "outcome": "done", "counts": "{}", "revision": 1}
    read = '{"cases": 1, "labels": 1, "quarantine": 0, "runs": 0}'
    commits = [
        ("labels", [_label("kits/case_1", one, "spleen", 0), _label("kits/case_1", one, "liver", 5)]),
        ("cases", [_case("kits/case_1", one, 1)]),
        ("runs", [{**run, "table_versions": read, **FILLED}]),
        ("labels", [_label("kits/case_1", other, "liver", 5)]),
        ("cases", [_case("kits/case_1", other, 2), _case("ward/case_9", one, 1, role="external", fold=None)]),
        ("quarantine", [{"dataset": "kits", "native_id": "case_7", "code": "crc", **refusal, **FILLED}]),
    ]
    for name in COLUMNS:
        (root / "tables" / name).mkdir(parents=True)
        DeltaTable.create(root / "tables" / name, _schema(name), configuration=CONFIGURATION)
    for number, (name, rows) in enumerate(commits):
        write_deltalake(
            root / "tables" / name,
            pa.Table.from_pylist(rows, _schema(name)),
            mode="append",
            # version 1 wrote one transaction a case, annotation, refusal or run
            commit_properties=CommitProperties(app_transactions=[Transaction(f"{name}:{number}", number)]),
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make_lake(Path(folder))
        with tarfile.open(sys.argv[1], "w:gz") as archive:
            archive.add(Path(folder) / "tables", "tables")
