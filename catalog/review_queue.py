"""What a reviewer should look at first: the queue of pseudo-labels, by what a correction is expected to gain.

    gain = max(0, achievable - expected) * sqrt((1 + most) / (1 + accepted))

expected: DSC that the calibration expects of the label, without one its mean probability, without either 0.
achievable: median of the expected DSC over the accepted labels of the class, 1 where none has one.
accepted: cases that show the class and whose counting label is human, reviewed or accepted; most: that of the class
with the most. So the weight is 1 for the commonest class and grows as a class gets rarer.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from catalog.columns import coded
from catalog.label_events import KEY, NEEDED, effective, first_of_each, is_text, label_codes, reviewed
from catalog.table_reads import frame_of
from catalog.tables import Tables
from datasets_registry.taxonomy import class_info

DECISIONS = ("accept", "review", "reject", "none")
WAITING = ("review", "none")
"""Decisions of the factory that wait for a person; none: it was not asked."""

_READ = (*KEY, *NEEDED, "voxels", "ml", "expected_dsc", "quality_score", "reason", "model_name", "model_version")
SHOWN = (
    *("case_id", "class_name", "decision", "gain", "expected", "achievable", "weight", "accepted"),
    *("ml", "reason", "model_name", "model_version", "annotation", "ingest_key", "channel"),
)
"""Columns of the queue."""


def review_queue(
    tables: Tables,
    *,
    dataset: str | None = None,
    class_name: str | None = None,
    decisions: Collection[str] = WAITING,
) -> pd.DataFrame:
    """Return the pseudo-labels that wait for a reviewer, the largest gain first; columns `SHOWN`.

    Of each case and class the newest pseudo-label, where no label of a person, drawn or reviewed, goes before it, and
    no verdict was given. dataset, class_name: keep only those. decisions: of the factory, among `DECISIONS`.
    ValueError for other decisions, KeyError for an unknown class.
    """
    if unknown := sorted(set(decisions) - set(DECISIONS)):
        raise ValueError(f"review queue: decision {', '.join(unknown)}, expected {', '.join(DECISIONS)}")
    wanted = None if class_name is None else class_info(class_name).name
    rows = tables.label_rows(columns=_READ)
    accepted = _accepted(rows)
    queue = frame_of(rows.filter(pa.array(_waiting(rows))))
    queue["decision"] = queue["decision"].fillna("none")
    queue["expected"] = queue["expected_dsc"].fillna(queue["quality_score"]).fillna(0.0).astype(float)
    queue["achievable"] = [accepted["achievable"].get(name, np.nan) for name in queue["class_name"]]
    queue["achievable"] = queue["achievable"].fillna(1.0).astype(float)
    queue["accepted"] = np.array([accepted["accepted"].get(name, 0) for name in queue["class_name"]], dtype=int)
    most = int(accepted["accepted"].max()) if len(accepted) else 0
    queue["weight"] = np.sqrt((1 + most) / (1 + queue["accepted"]))
    queue["gain"] = (queue["achievable"] - queue["expected"]).clip(lower=0) * queue["weight"]
    queue = queue[queue["decision"].isin(list(decisions))]
    if dataset is not None:
        queue = queue[queue["dataset"] == dataset]
    if wanted is not None:
        queue = queue[queue["class_name"] == wanted]
    ordered = queue.sort_values(["gain", "case_id", "channel"], ascending=[False, True, True])
    return ordered[list(SHOWN)].reset_index(drop=True)


def _accepted(rows: pa.Table) -> pd.DataFrame:
    """Return by class how many cases show it by a label that counts and is accepted, and the DSC these reach."""
    human = is_text(rows["state"], "annotated")
    trusted = human | reviewed(rows) | is_text(rows["decision"], "accept")
    shown = frame_of(rows.filter(pa.array(effective(rows) & trusted & (rows["voxels"].to_numpy() > 0))))
    grouped = shown.groupby("class_name")
    return pd.DataFrame({"accepted": grouped.size(), "achievable": grouped["expected_dsc"].median()})


def _waiting(rows: pa.Table) -> NDArray[np.bool_]:
    """Return for each row whether it is the newest pseudo-label of its case and class and no person has spoken."""
    waiting = np.zeros(rows.num_rows, dtype=bool)
    if rows.num_rows == 0:
        return waiting
    codes = label_codes(rows)
    settled = np.unique(codes[is_text(rows["state"], "annotated") | reviewed(rows)])
    verdict, _ = coded(rows["verdict"])
    open_ = np.flatnonzero((verdict < 0) & ~np.isin(codes, settled))
    waiting[open_[first_of_each(rows.take(pa.array(open_)), codes[open_])]] = True
    return waiting
