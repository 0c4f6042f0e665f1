"""`catalog ...`: a catalog of 1,000,000 label rows: filter, coverage, appends of 64 cases, beside plain deltalake."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable

from benchmarks.catalog_rows import make_batch, make_case, make_labels
from benchmarks.side_by_side import record, run_in_turn
from catalog import queries, schema
from catalog.columns import NOT_KEPT, forget
from catalog.label_events import KEY
from catalog.tables import Tables
from datasets_registry.taxonomy import class_names

LARGE, SMALL, BATCH = 31_250, 320, 64
"""Cases in the large and in the small catalog (32 labels each), and in one append."""

APPENDS = int(os.environ.get("CTFACTORY_BENCH_APPENDS", "110"))
"""Appends timed at each size; more than a hundred, so that joining files and checkpoints are among them."""

CLASS, STATE = "pancreas_tumor", "annotated"
NARROW = [name for name in schema.LABELS if name not in NOT_KEPT]


def fill(root: Path, cases: int) -> Tables:
    """Return tables with that many cases, their labels with few positions; one case in 50 has a second version."""
    tables = Tables(root)
    for start in range(0, cases, 1_000):
        numbers = range(start, min(start + 1_000, cases))
        rows = [make_case(number) for number in numbers]
        tables.commit_cases([(row, make_labels(row, n, full=False)) for row, n in zip(rows, numbers, strict=True)])
    again = [make_case(number, version=2) for number in range(0, cases, 50)]
    tables.commit_cases([(row, make_labels(row, 50 * n, full=False)) for n, row in enumerate(again)])
    tables.compact()
    return tables


def _plain_rows(root: Path, filters: list[tuple[str, str, str]] | None, columns: list[str]) -> pd.DataFrame:
    """Return labels of current cases as one would with deltalake and pandas alone."""
    cases = DeltaTable(root / "tables/cases").to_pandas(columns=["case_id", "ingest_key", "revision", "dataset"])
    cases = cases.sort_values("revision").drop_duplicates("case_id", keep="last").drop(columns="revision")
    labels = DeltaTable(root / "tables/labels").to_pandas(columns=columns, filters=filters)
    newest = labels.groupby(["case_id", "ingest_key", "annotation"])["revision"].transform("max")
    rows: pd.DataFrame = labels[labels["revision"] == newest].merge(cases, on=["case_id", "ingest_key"])
    return rows


def _plain_coverage(root: Path, *, events: bool = False) -> pd.DataFrame:
    columns = ["case_id", "ingest_key", "annotation", "revision", "class_name", "state", "committed_at", "ml"]
    labels = _plain_rows(root, None, columns)
    if events:
        key = list(KEY)
        told = DeltaTable(root / "tables/label_events").to_pandas(columns=[*key, "event", "committed_at", "event_id"])
        last = told.sort_values(["committed_at", "event_id"]).drop_duplicates(key, keep="last")
        gone = last.loc[last["event"] == "retracted", key]
        labels = labels.merge(gone, on=key, how="left", indicator=True)
        labels = labels[(labels["_merge"] == "left_only") | (labels["state"] == "annotated")]
    labels["pseudo"] = labels["state"] != "annotated"
    labels = labels.sort_values(["pseudo", "committed_at"], ascending=[True, False])
    labels = labels.drop_duplicates(["case_id", "class_name"])
    matrix = labels.pivot_table(index="class_name", columns="dataset", values="ml", aggfunc="sum", fill_value=0)
    return matrix.reindex(list(class_names()))


def _plain_append(root: Path, batch: list[Any]) -> None:
    """Add rows that are not there yet, as deltalake offers it: a merge on the columns of the key."""
    for name, rows in (("labels", [row for _, labels in batch for row in labels]), ("cases", [c for c, _ in batch])):
        key = [*schema.KEYS[name], "class_name"] if name == "labels" else [*schema.KEYS[name], "ingest_key"]
        filled = [{**row, "revision": 1, "schema_version": 1, "committed_at": pd.Timestamp.now("UTC")} for row in rows]
        source = pa.Table.from_pylist(filled, schema=schema.arrow_schema(name))
        same = " AND ".join(f"old.{column} = new.{column}" for column in key)
        table = DeltaTable(root / "tables" / name)
        table.merge(source, same, source_alias="new", target_alias="old").when_not_matched_insert_all().execute()


def _timed(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _looks(root: Path, tables: Tables) -> None:
    filters = [("class_name", "=", CLASS), ("state", "=", STATE)]

    def ours() -> pd.DataFrame:
        return tables.labels(class_name=CLASS, state=STATE, columns=NARROW)

    def peer() -> pd.DataFrame:
        return _plain_rows(root, filters, NARROW)

    found, expected = ours(), peer().sort_values("case_id")
    if found["case_id"].tolist() != expected["case_id"].tolist() or not np.array_equal(found["ml"], expected["ml"]):
        raise ValueError(f"catalog filter: {len(found)} rows, deltalake gives {len(expected)}, expected the same")
    print(f"{len(found)} rows of {CLASS}, {STATE}")
    run_in_turn("catalog filter", ours, peer)

    def first() -> pd.DataFrame:
        forget()
        return Tables(root).labels(class_name=CLASS, state=STATE, columns=NARROW)

    run_in_turn("catalog filter, first look", first, peer)
    if not np.allclose(queries.coverages(tables)["ml"], _plain_coverage(root)):
        raise ValueError("catalog coverage: ours and deltalake's differ, expected equal volumes")
    run_in_turn("catalog coverage", lambda: queries.coverages(tables), lambda: _plain_coverage(root), repeats=3)

    def first_coverage() -> Any:
        forget()
        return queries.coverages(Tables(root))

    run_in_turn("catalog coverage, first look", first_coverage, lambda: _plain_coverage(root), repeats=3)


def _retractions(root: Path, tables: Tables) -> None:
    """Time coverage again once a run's labels are taken back: those of every 31st case, some 1,000 of them."""
    rows = tables.labels(columns=[*KEY, "state"])
    some = rows[rows["case_id"].isin(sorted(rows["case_id"].unique())[::31])]
    tables.record_events(
        [
            {"event_id": str(n), **dict(zip(KEY, key, strict=True)), "event": "retracted", "who": "w", "why": "y"}
            for n, key in enumerate(some[list(KEY)].itertuples(index=False, name=None))
        ]
    )
    print(f"{len(some)} labels with a retraction, {(some['state'] == 'pseudo').sum()} of them pseudo-labels")
    if not np.allclose(queries.coverages(tables)["ml"], _plain_coverage(root, events=True)):
        raise ValueError("catalog coverage, retracted: ours and deltalake's differ, expected equal volumes")
    run_in_turn(
        "catalog coverage, retracted",
        lambda: queries.coverages(tables),
        lambda: _plain_coverage(root, events=True),
        repeats=3,
    )

    def first() -> Any:
        forget()
        return queries.coverages(Tables(root))

    run_in_turn("catalog coverage, retracted, first look", first, lambda: _plain_coverage(root, events=True), repeats=3)


def _appends(large: Tables, small: Tables, peer_root: Path) -> None:
    taken: dict[str, list[float]] = {"large": [], "small": []}
    for number in range(APPENDS):
        batch = make_batch(range(10**6 + number * BATCH, 10**6 + (number + 1) * BATCH))
        for name, tables in (("large", large), ("small", small)):
            taken[name].append(_timed(partial(tables.commit_cases, batch)))
    batches = [make_batch(range(2 * 10**6 + n * BATCH, 2 * 10**6 + (n + 1) * BATCH)) for n in range(5)]
    peer = [_timed(partial(_plain_append, peer_root, batch)) for batch in batches]
    mean = {name: statistics.fmean(times) for name, times in taken.items()}
    for name, times in taken.items():
        print(f"{name}: mean {mean[name]:.3f} s, median {statistics.median(times):.3f} s, longest {max(times):.3f} s")
    record("catalog append", mean["large"], statistics.median(peer), "s")
    record("catalog append growth", mean["large"], mean["small"], "s")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="catalog-") as folder:
        root = Path(folder)
        large, small = fill(root / "large", LARGE), fill(root / "small", SMALL)
        _looks(root / "large", large)
        _retractions(root / "large", large)
        _appends(large, small, root / "large")
