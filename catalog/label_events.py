"""What was decided about labels: which are retracted, which a reviewer accepted or rejected, and which one counts.

Nothing is edited: each decision is a row of `label_events`, and what stands is worked out when labels are read.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.columns import CODED, coded
from catalog.resolve import positions_of

ACCEPTED, REJECTED, RETRACTED, RESTORED = "accepted", "rejected", "retracted", "restored"
KEY = ("case_id", "ingest_key", "annotation", "class_name")
"""Columns that name one label."""

STANDING = {"verdict": CODED, "retracted": pa.bool_()}
"""Columns that labels can be asked for beside their own: the last word of a reviewer (accepted, rejected; null: none)
and whether a retraction stands."""

NEEDED = ("class_name", "state", "decision", "review_state", "committed_at", "verdict")
"""Columns from which `effective` tells which label counts."""


def standing_events(events: pd.DataFrame) -> pd.DataFrame:
    """Return one row a label that events are about: `KEY`, `verdict` and `retracted`.

    events: as `Tables.events()` returns them, oldest first. The last verdict stands. A label is retracted while one of
    its retractions is not restored: each is known by its `run_id`, and a restoration takes back that one alone.
    """
    key = list(KEY)
    verdicts = events[events["event"].isin([ACCEPTED, REJECTED])].groupby(key)["event"].last()
    undone = events[events["event"].isin([RETRACTED, RESTORED])]
    last = undone.assign(run_id=undone["run_id"].fillna("")).groupby([*key, "run_id"])["event"].last()
    retracted = (last == RETRACTED).groupby(level=key).any()
    found = pd.DataFrame({"verdict": verdicts, "retracted": retracted}).reset_index()
    found["retracted"] = found["retracted"].eq(True)  # NaN where there are verdicts only
    return found


def with_standing(rows: pa.Table, found: pd.DataFrame) -> pa.Table:
    """Return label rows with the columns `STANDING`. What people annotated is beyond any event.

    rows: coded text, with the columns `KEY` and `state`. found: of `standing_events`; only rows of their cases are
    looked at.
    """
    verdict = np.full(rows.num_rows, -1, dtype=np.int32)
    retracted = np.zeros(rows.num_rows, dtype=bool)
    if len(found) and rows.num_rows:
        known = pa.Table.from_pandas(found[list(KEY)], preserve_index=False).cast(
            pa.schema([pa.field(name, CODED) for name in KEY])
        )
        codes, cases = coded(rows["case_id"])
        concerned = pc.is_in(cases, value_set=pa.array(found["case_id"].unique(), pa.string()))
        numbers = np.flatnonzero(concerned.to_numpy(zero_copy_only=False)[codes])
        some = rows.select([*KEY, "state"]).take(pa.array(numbers))
        place = positions_of(some, known, KEY)
        place[is_text(some["state"], "annotated")] = -1
        hit = place >= 0
        verdicts = found["verdict"].map({ACCEPTED: 0, REJECTED: 1}).fillna(-1).to_numpy(np.int32)
        verdict[numbers[hit]] = verdicts[place[hit]]
        retracted[numbers[hit]] = found["retracted"].to_numpy(bool)[place[hit]]
    texts = pa.array([ACCEPTED, REJECTED], pa.string())
    words = pa.DictionaryArray.from_arrays(pa.array(verdict, mask=verdict < 0), texts)
    return rows.append_column(pa.field("verdict", CODED), words).append_column("retracted", pa.array(retracted))


def is_text(column: pa.ChunkedArray, text: str) -> NDArray[np.bool_]:
    """Return for each row of a coded text column whether it holds `text`."""
    codes, texts = coded(column)
    same = pc.equal(texts, text).fill_null(False).to_numpy(zero_copy_only=False)
    found: NDArray[np.bool_] = np.append(same, False)[codes]  # code -1: null
    return found


def counting(rows: pa.Table) -> NDArray[np.bool_]:
    """Return for each label row whether it can count: not rejected by a reviewer, nor by the factory alone.

    rows: with the columns `NEEDED`. A mask that the factory rejected counts once a reviewer accepted it.
    """
    ok = is_text(rows["state"], "annotated")
    doubtful = is_text(rows["decision"], "reject") & ~is_text(rows["verdict"], ACCEPTED)
    found: NDArray[np.bool_] = ok | ~(is_text(rows["verdict"], REJECTED) | doubtful)
    return found


def reviewed(rows: pa.Table) -> NDArray[np.bool_]:
    """Return for each label row whether a person looked at it: accepted, or committed as reviewed, and not rejected."""
    looked = is_text(rows["verdict"], ACCEPTED) | is_text(rows["review_state"], "reviewed")
    found: NDArray[np.bool_] = looked & ~is_text(rows["verdict"], REJECTED)
    return found


def effective(rows: pa.Table) -> NDArray[np.bool_]:
    """Return for each label row whether it is the one that counts for its case and class.

    Human before reviewed before pseudo, among equals the newest, then the first by annotation name; labels that are
    not `counting` never. rows: as `Tables.label_rows` returns them, with the columns `NEEDED`.
    """
    if rows.num_rows == 0:
        return np.zeros(0, dtype=bool)
    codes = label_codes(rows)
    counted = counting(rows)
    found: NDArray[np.bool_] = counted & (np.bincount(codes, counted)[codes] == 1)
    several = np.flatnonzero(counted & ~found)  # a human and a pseudo one, or pseudo ones of several models
    found[several[first_of_each(rows.take(pa.array(several)), codes[several])]] = True
    return found


def label_codes(rows: pa.Table) -> NDArray[np.int64]:
    """Return one number a row, the same for labels of one case and class; there must be a row."""
    cases, _ = coded(rows["case_id"])
    channel = rows["channel"].to_numpy().astype(np.int64)
    codes: NDArray[np.int64] = cases.astype(np.int64) * (int(channel.max()) + 1) + channel
    return codes


def first_of_each(rows: pa.Table, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the row that goes before the others of its code, by the order of `effective`."""
    rank = np.where(is_text(rows["state"], "annotated"), 0, np.where(reviewed(rows), 1, 2))
    order = np.lexsort(
        (
            rows["annotation"].cast(pa.string()).to_numpy(zero_copy_only=False).astype(str),
            -rows["committed_at"].cast(pa.int64()).to_numpy(),
            rank,
            codes,
        )
    )
    _, first = np.unique(codes[order], return_index=True)
    chosen: NDArray[np.int64] = order[first]
    return chosen
