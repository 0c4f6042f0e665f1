"""Which rows of an append-only table are the current ones; on codes and numbers, for millions of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.columns import coded


def joint_codes(columns: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    """Return one number a row; two rows have the same where all of their (coded text) columns are equal."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        own, texts = coded(column)
        codes = codes * (len(texts) + 1) + own + 1
    return codes


def newest(rows: pa.Table, keys: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each row whether no other row of the same `keys` has a higher `revision`."""
    revision: NDArray[np.int32] = rows["revision"].to_numpy()
    later = revision > 1
    if not later.any():
        return ~later
    codes = joint_codes([rows[key] for key in keys])
    # Only what has a second revision can be superseded, and that is little.
    revised, place = np.unique(codes[later], return_inverse=True)
    highest = np.zeros(len(revised), dtype=revision.dtype)
    np.maximum.at(highest, place, revision[later])
    found = np.minimum(np.searchsorted(revised, codes), len(revised) - 1)
    return np.where(revised[found] == codes, revision == highest[found], True)


def positions_of(rows: pa.Table, among: pa.Table, keys: Sequence[str]) -> NDArray[np.int64]:
    """Return for each of `rows` the number of the row in `among` with the same `keys` (the first); -1 where none is.

    Both have the keys as coded text.
    """
    wanted, known = np.zeros(rows.num_rows, dtype=np.int64), np.zeros(among.num_rows, dtype=np.int64)
    there = np.ones(among.num_rows, dtype=bool)
    for key in keys:
        codes, texts = coded(rows[key])
        own, own_texts = coded(among[key])
        translated = pc.index_in(own_texts, value_set=texts).fill_null(-1).to_numpy(zero_copy_only=False)[own]
        wanted, known = wanted * (len(texts) + 1) + codes + 1, known * (len(texts) + 1) + translated + 1
        there &= translated >= 0
    numbers = np.flatnonzero(there)
    numbers = numbers[np.argsort(known[numbers], kind="stable")]
    if len(numbers) == 0:
        return np.full(rows.num_rows, -1)
    ordered = known[numbers]
    found = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[found] == wanted, numbers[found], -1)
