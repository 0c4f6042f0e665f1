"""Everything the tables know of one case, now and over its versions, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from catalog.current import BULKY
from catalog.label_events import ACCEPTED, REJECTED, RETRACTED, STANDING, effective
from catalog.plain import plain_rows
from catalog.schema import LABELS
from catalog.table_reads import frame_of
from catalog.tables import Tables
from datasets_registry.nearest import nearest_names
from datasets_registry.taxonomy import class_names

NEAREST = 5
"""Ids offered for a case that is not there."""

CAUSES = {
    "raw_sha256": "raw files",
    "card_digest": "card",
    "harmoniser_version": "harmoniser",
    "spacing_mm": "grid",
    "content_sha256": "decoded scan",
    "withdrawn": "withdrawal",
}
"""Columns that tell why a case was made anew, in words."""


@dataclass(frozen=True)
class CaseReport:
    """One case as it stands.

    case: its row, `steps` decoded, without the manifest. versions: how many there are. group: the ids that share its
    split group, itself among them. labels: its label rows by channel, those that count first, without manifest and
    sampled voxels; retracted ones too, with `verdict`, `retracted` and `counts`: whether it is the one that counts for
    its class. unlabelled: the classes for which none counts.
    """

    case: dict[str, Any]
    versions: int
    group: list[str]
    labels: list[dict[str, Any]]
    unlabelled: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists."""
        return asdict(self)


@dataclass(frozen=True)
class CaseHistory:
    """The versions of a case, oldest first, and every annotation of each.

    versions: revision, committed_at, ingest_key, card_digest, harmoniser_version, path, flow_run_id, `changed` (what
    differs from the version before) and `superseded_by` (a revision, None: current). annotations: revision of the
    case, annotation, state, model_name, model_version, classes (count), how many of these are retracted, accepted and
    rejected, committed_at, flow_run_id. events: what was decided about its labels, oldest first.
    """

    case_id: str
    versions: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    events: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists."""
        return asdict(self)


def describe_case(tables: Tables, case_id: str) -> CaseReport:
    """Return what is known of the current version of a case. KeyError names the nearest ids, or why it was refused."""
    seen = tables.versions()
    rows = tables.cases(case_ids=[case_id], at_versions=seen, history=True)
    if rows.empty:
        raise _unknown(tables, case_id, seen)
    (case,) = plain_rows(rows.tail(1).drop(columns="manifest"))
    case["steps"] = [json.loads(step) for step in case["steps"]]
    own = [*(name for name in LABELS if name not in BULKY), *STANDING]
    found = tables.label_rows(case_ids=[case_id], columns=own, at_versions=seen, retracted=True)
    labels = frame_of(found)
    labels["counts"] = False
    if len(labels):
        standing = ~labels["retracted"].to_numpy(bool)
        labels.loc[standing, "counts"] = effective(found.filter(pa.array(standing)))
    labels = labels.assign(after=~labels["counts"]).sort_values(["channel", "after", "state", "committed_at"])
    return CaseReport(
        case=case,
        versions=len(rows),
        group=tables.group_members(case["split_group"]),
        labels=plain_rows(labels.drop(columns=["case_id", "ingest_key", "dataset", "role", "fold", "path", "after"])),
        unlabelled=[name for name in class_names() if name not in set(labels[labels["counts"]]["class_name"])],
    )


def case_history(tables: Tables, case_id: str) -> CaseHistory:
    """Return the versions of a case, what made each and what superseded it. KeyError as in `describe_case`."""
    seen = tables.versions()
    rows = tables.cases(case_ids=[case_id], at_versions=seen, history=True)
    if rows.empty:
        raise _unknown(tables, case_id, seen)
    versions = plain_rows(rows)
    told = ("revision", "committed_at", "ingest_key", "card_digest", "harmoniser_version", "path", "flow_run_id")
    history = [
        {
            **{name: row[name] for name in told},
            "changed": _changes(before, row),
            "superseded_by": None if after is None else after["revision"],
        }
        for before, row, after in zip([None, *versions], versions, [*versions[1:], None], strict=False)
    ]
    events = plain_rows(tables.events([case_id], at_versions=seen).drop(columns=["case_id", "schema_version"]))
    return CaseHistory(case_id, history, _annotations(tables, case_id, seen, rows), events)


def _changes(before: Mapping[str, Any] | None, row: Mapping[str, Any]) -> list[str]:
    if before is None:
        return []
    # Equal causes and another row: the same version was written again, its files put right.
    return [word for name, word in CAUSES.items() if before[name] != row[name]] or ["files"]


def _annotations(tables: Tables, case_id: str, seen: Mapping[str, int], cases: pd.DataFrame) -> list[dict[str, Any]]:
    told = ["state", "model_name", "model_version", "committed_at", "flow_run_id"]
    columns = ["class_name", *told, *STANDING]
    labels = tables.labels(case_ids=[case_id], columns=columns, at_versions=seen, history=True)
    if labels.empty:
        return []
    labels = labels.assign(**{word: labels["verdict"] == word for word in (ACCEPTED, REJECTED)})
    counted = (RETRACTED, ACCEPTED, REJECTED)
    one_each = labels.groupby(["ingest_key", "annotation"], as_index=False).agg(
        {"class_name": "count", **dict.fromkeys(counted, "sum"), **dict.fromkeys(told, "first")}
    )
    one_each["revision"] = one_each["ingest_key"].map(cases.groupby("ingest_key")["revision"].max())
    ordered = one_each.rename(columns={"class_name": "classes"}).sort_values(["revision", "committed_at"])
    return plain_rows(ordered[["revision", "annotation", "classes", *counted, *told]])


def _unknown(tables: Tables, case_id: str, seen: Mapping[str, int]) -> KeyError:
    refused = tables.quarantined(case_id.partition("/")[0], at_versions=seen)
    refused = refused[refused["native_id"] == case_id.partition("/")[2]]
    if not refused.empty:
        last = refused.iloc[-1]
        return KeyError(
            f"case {case_id!r} was refused: {last['code']}: found {last['found']}, expected {last['expected']}; "
            f"{last['remedy']}"
        )
    cases = tables.cases(at_versions=seen)
    ids = cases["case_id"].tolist()
    asked = case_id.lower()
    near = [name for name in ids if asked in (name.lower(), name.lower().partition("/")[2])]
    near += [name for name in nearest_names(case_id, ids, NEAREST) if name not in near]
    found = f"nearest: {', '.join(near[:NEAREST])}" if near else f"none of {len(ids)} cases is called alike"
    return KeyError(f"unknown case {case_id!r}; {found}")
