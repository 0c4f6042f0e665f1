"""Reading the tables: current rows, rows of an earlier version, the history of a case."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from catalog import schema
from catalog.columns import CODED, coded, plain
from catalog.delta import AppendTable
from catalog.label_events import STANDING, standing_events, with_standing
from catalog.location import Location
from catalog.resolve import newest, positions_of
from catalog.splits import settled_folds
from catalog.twins import joined_groups

Versions = Mapping[str, int] | None
OF_THE_CASE = ("dataset", "role", "fold", "path")
"""Columns of its case that each label row carries too."""

_SETTLED = (
    *("case_id", "revision", "split_group", "fold", "role", "committed_at", "schema_version"),
    *("ingest_key", "dataset", "path", "withdrawn"),
)
"""Columns of `cases` from which revisions and folds are settled, and those that labels take from their case."""

SETTLED_KEPT = 4
"""Versions of the cases whose folds are kept in memory, and of the events about labels."""


def _now() -> datetime:
    return datetime.now(UTC)


class TableReads:
    """What can be asked of the tables at `root`; see `Tables`, which also writes."""

    def __init__(self, root: str | Path | Location, now: Callable[[], datetime] = _now) -> None:
        self.location = Location.of(root)
        refused = "%" if self.location.is_local else "%#?"
        if any(sign in self.location.url for sign in refused):
            # deltalake 1.6.6 takes %20 for a quoted space and # for the end of a URL, then cannot find its own files.
            raise ValueError(f"tables root: found {str(root)!r}, expected a path without {' or '.join(refused)}")
        self._now = now
        self._tables = {
            name: AppendTable(self.location / "tables" / name, schema.arrow_schema(name), schema.NAMED_BY[name])
            for name in schema.TABLES
        }
        self._settled_at: OrderedDict[tuple[int, ...], pd.DataFrame] = OrderedDict()
        self._standing_at: OrderedDict[int, pd.DataFrame] = OrderedDict()

    def exist(self) -> bool:
        """Whether there are tables already; looking does not create them."""
        return self._tables["cases"].exists()

    def has(self, case_id: str, ingest_key: str) -> bool:
        """Whether this version of the case is the current one, so that ingesting it again would change nothing."""
        rows = self._tables["cases"].read(columns=["ingest_key", "revision"], where={"case_id": case_id}).to_pylist()
        return bool(rows) and max(rows, key=lambda row: int(row["revision"]))["ingest_key"] == ingest_key

    def withdrawn(self, case_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Return the withdrawn cases, among `case_ids` or all, and why each must not be used."""
        where = {"case_id": None if case_ids is None else list(case_ids)}
        rows = plain(self._newest_cases(["withdrawn"], where))
        pairs = zip(rows["case_id"].to_pylist(), rows["withdrawn"].to_pylist(), strict=True)
        return {case_id: reason for case_id, reason in sorted(pairs) if reason is not None}

    def current_keys(self, dataset: str | None = None) -> dict[str, str]:
        """Return the ingest key of the current version of every case: `has` for many cases in one look."""
        rows = self._newest_cases(["ingest_key"], {"dataset": dataset})
        return dict(zip(rows["case_id"].to_pylist(), rows["ingest_key"].to_pylist(), strict=True))

    def versions(self) -> dict[str, int]:
        """Return the committed version of every table; a case visible at these has its labels there too."""
        # Cases first: labels are committed before their case, so the later look can only see more of them.
        return {name: self._tables[name].version() for name in schema.TABLES}

    def cases(
        self,
        dataset: str | None = None,
        role: str | None = None,
        fold: int | None = None,
        *,
        case_ids: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
        at_versions: Versions = None,
        history: bool = False,
    ) -> pd.DataFrame:
        """Return the current version of each case, sorted by case id; columns of `schema.CASES`, no fingerprint.

        dataset, role, fold, case_ids: keep only those. columns: only these, beside those that name and settle a case.
        at_versions: as `versions()` returned them earlier. history: superseded versions too, and withdrawn cases, which
        are left out otherwise.
        Groups linked as twins show the smallest of their names, and all scans of a group one fold
        (`splits.settled_folds`); an `at_versions` from before there was a table `twins` or `splits` sees today's.
        """
        versions = at_versions or {"cases": self._tables["cases"].version()}
        asked = [name for name in schema.CASES if name != "fingerprint"]
        if columns is not None:
            asked = list(dict.fromkeys(["case_id", "revision", *columns]))
        where = {"dataset": dataset, "case_id": None if case_ids is None else list(case_ids)}
        settled = self._settled(versions)
        if not history:
            settled = settled[settled["current"]]
        if role is not None:
            settled = settled[settled["role"] == role]
        if fold is not None:
            settled = settled[settled["fold"] == fold]
        own = [name for name in asked if name not in ("split_group", "fold")]
        rows = frame_of(self._tables["cases"].read(versions.get("cases"), own, where))
        joined = rows.merge(settled[["case_id", "revision", "split_group", "fold"]], on=["case_id", "revision"])
        return joined.sort_values(["case_id", "revision"])[asked].reset_index(drop=True)

    def _settled(self, versions: Mapping[str, int]) -> pd.DataFrame:
        """Return every row of `cases` by case and revision: the columns `_SETTLED`, `newest` and `current`.

        Revisions and folds are settled over the whole table, whatever is asked for, and once for each version of it.
        """
        cases, twins, splits = seen = tuple(
            versions[name] if name in versions else self._tables[name].version()
            for name in ("cases", "twins", "splits")
        )
        kept = self._settled_at.get(seen)
        if kept is not None:
            return kept
        rows = frame_of(self._tables["cases"].read(cases, _SETTLED))
        dealt = frame_of(self._tables["splits"].read(splits))
        if joined := self._joined(twins):
            rows["split_group"] = rows["split_group"].map(lambda group: joined.get(group, group))
        rows["fold"] = (
            rows["split_group"].map(settled_folds(rows, dealt, joined)).where(rows["role"] == "train").astype("Int32")
        )
        rows = rows.sort_values(["case_id", "revision"]).reset_index(drop=True)
        rows["newest"] = ~rows["case_id"].duplicated(keep="last")
        rows["current"] = rows["newest"] & rows["withdrawn"].isna()
        self._settled_at[seen] = rows
        while len(self._settled_at) > SETTLED_KEPT:
            self._settled_at.popitem(last=False)
        return rows

    def group_members(self, split_group: str) -> list[str]:
        """Return the ids of the cases whose current version belongs to a split group or one linked to it, sorted."""
        wanted = self._joined(None).get(split_group, split_group)
        cases = self._settled({})
        return sorted(cases.loc[cases["current"] & (cases["split_group"] == wanted), "case_id"])

    def written_groups(self) -> dict[str, tuple[int, str]]:
        """Return case id -> (revision, split group as written) of the newest version of every case, withdrawn or not.

        What looks like a withdrawn scan is still a scan that was there.
        """
        rows = self._newest_cases(["split_group"])
        pairs = zip(rows["revision"].to_pylist(), rows["split_group"].to_pylist(), strict=True)
        return dict(zip(rows["case_id"].to_pylist(), pairs, strict=True))

    def fingerprints(self, versions: Mapping[str, int]) -> dict[str, str]:
        """Return the stored fingerprint of each case at the revision given for it, where it has one."""
        narrow = ["case_id", "revision", "fingerprint"]
        rows = self._tables["cases"].read(columns=narrow, where={"case_id": list(versions)}).to_pylist()
        wanted = [row for row in rows if row["fingerprint"] and versions.get(row["case_id"]) == row["revision"]]
        return {row["case_id"]: row["fingerprint"] for row in wanted}

    def _newest_cases(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> pa.Table:
        """Return case id, revision and `columns` of the newest row of every case."""
        rows = self._tables["cases"].read(columns=["case_id", "revision", *columns], where=where, coded=True)
        return rows.filter(pa.array(newest(rows, ["case_id"])))

    def _joined(self, version: int | None) -> dict[str, str]:
        links = self._tables["twins"].read(version, columns=["group_a", "group_b"])
        return joined_groups(zip(links["group_a"].to_pylist(), links["group_b"].to_pylist(), strict=True))

    def labels(
        self,
        dataset: str | None = None,
        *,
        case_ids: Iterable[str] | None = None,
        class_name: str | None = None,
        state: str | None = None,
        annotation: str | None = None,
        model_version: str | None = None,
        columns: Sequence[str] | None = None,
        at_versions: Versions = None,
        history: bool = False,
        retracted: bool = False,
    ) -> pd.DataFrame:
        """Return the labels of current cases, sorted by case, annotation and channel.

        Columns: those of `schema.LABELS` (or `columns` of them, and of `label_events.STANDING`), and `dataset`,
        `role`, `fold`, `path` of the case. The keyword arguments keep only rows with that value. retracted: labels
        that were retracted, too. history: these, and labels on superseded versions of cases, and on withdrawn cases.
        A retraction that `at_versions` does not know of has not happened. Which of several labels of one class counts,
        and whether a reviewer rejected it, is for `queries.effective_labels`.
        Name `columns` where the table is large: manifests and sampled voxels are most of its bytes.
        """
        rows = self.label_rows(
            dataset,
            case_ids=case_ids,
            class_name=class_name,
            state=state,
            annotation=annotation,
            model_version=model_version,
            columns=columns,
            at_versions=at_versions,
            history=history,
            retracted=retracted,
        )
        return sorted_labels(rows)

    def label_rows(
        self,
        dataset: str | None = None,
        *,
        case_ids: Iterable[str] | None = None,
        class_name: str | None = None,
        state: str | None = None,
        annotation: str | None = None,
        model_version: str | None = None,
        columns: Sequence[str] | None = None,
        at_versions: Versions = None,
        history: bool = False,
        retracted: bool = False,
    ) -> pa.Table:
        """Return what `labels` does as Arrow, text as dictionaries, in no stated order: for millions of rows."""
        versions = at_versions or {"cases": self._tables["cases"].version()}
        cases = self._case_columns(dataset, case_ids, versions, history=history)
        where = {
            "class_name": class_name,
            "state": state,
            "annotation": annotation,
            "model_version": model_version,
            "case_id": None if dataset is None and case_ids is None else cases["case_id"].unique().to_pylist(),
        }
        needed = ["case_id", "ingest_key", "annotation", "channel", "revision"]
        wanted = list(schema.LABELS) if columns is None else list(dict.fromkeys([*needed, *columns]))
        told = [name for name in wanted if name in STANDING]
        wanted = [name for name in wanted if name not in STANDING]
        standing = self._standing(at_versions)
        judged = bool(told) or not standing.empty
        read = list(dict.fromkeys([*wanted, "class_name", "state"])) if judged else wanted
        rows = self._tables["labels"].read(versions.get("labels"), read, where, coded=True)
        found = positions_of(rows, cases, ["case_id", "ingest_key"])
        current = (found >= 0) & newest(rows, schema.KEYS["labels"])
        rows, found = rows.filter(pa.array(current)), found[current]
        for name in OF_THE_CASE:
            rows = rows.append_column(cases.schema.field(name), cases[name].take(pa.array(found)))
        if not judged:
            return rows
        rows = with_standing(rows, standing)
        if not (history or retracted):
            rows = rows.filter(pc.invert(rows["retracted"]))
        return rows.select([*wanted, *OF_THE_CASE, *told])

    def _standing(self, at_versions: Versions) -> pd.DataFrame:
        """Return what stands of the events about labels; of an `at_versions` from before there were any, nothing."""
        version = self._tables["label_events"].version() if at_versions is None else at_versions.get("label_events", -1)
        if version not in self._standing_at:
            none = frame_of(schema.arrow_schema("label_events").empty_table())
            events = self.events(at_versions={"label_events": version}) if version >= 0 else none
            self._standing_at[version] = standing_events(events)
            while len(self._standing_at) > SETTLED_KEPT:
                self._standing_at.popitem(last=False)
        return self._standing_at[version]

    def _case_columns(
        self, dataset: str | None, case_ids: Iterable[str] | None, versions: Mapping[str, int], *, history: bool
    ) -> pa.Table:
        """Return what labels take from their case, text coded; one row a version of it."""
        names = ["case_id", "ingest_key", *OF_THE_CASE]
        frame = self._settled(versions)
        if not history:
            frame = frame[frame["current"]]
        if dataset is not None:
            frame = frame[frame["dataset"] == dataset]
        if case_ids is not None:
            frame = frame[frame["case_id"].isin(list(case_ids))]
        frame = frame[names]
        frame = frame.drop_duplicates(["case_id", "ingest_key"])
        fields = [pa.field(name, pa.int32() if name == "fold" else CODED) for name in names]
        return pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False)

    def quarantined(self, dataset: str | None = None, *, at_versions: Versions = None) -> pd.DataFrame:
        """Return the refused cases, oldest first, with the columns of `schema.QUARANTINE`."""
        version = (at_versions or {}).get("quarantine")
        rows = frame_of(self._tables["quarantine"].read(version, where={"dataset": dataset}))
        return rows.sort_values(["committed_at", "dataset", "native_id"]).reset_index(drop=True)

    def runs(self, kind: str | None = None, *, at_versions: Versions = None) -> pd.DataFrame:
        """Return the latest record of every run, by start, with the columns of `schema.RUNS`."""
        rows = frame_of(self._tables["runs"].read((at_versions or {}).get("runs"), where={"kind": kind}))
        last = rows.groupby("run_id")["revision"].transform("max")
        return rows[rows["revision"] == last].sort_values(["started", "run_id"]).reset_index(drop=True)

    def events(self, case_ids: Iterable[str] | None = None, *, at_versions: Versions = None) -> pd.DataFrame:
        """Return what was decided about labels, oldest first, with the columns of `schema.LABEL_EVENTS`."""
        where = {"case_id": None if case_ids is None else list(case_ids)}
        rows = frame_of(self._tables["label_events"].read((at_versions or {}).get("label_events"), where=where))
        return rows.sort_values(["committed_at", "event_id"]).reset_index(drop=True)

    def moves(self, model_name: str | None = None, *, at_versions: Versions = None) -> pd.DataFrame:
        """Return the moves of the champion, oldest first, with the columns of `schema.PROMOTIONS`."""
        version = (at_versions or {}).get("promotions")
        rows = frame_of(self._tables["promotions"].read(version, where={"model_name": model_name}))
        return rows.sort_values(["committed_at", "move_id"]).reset_index(drop=True)

    def commits(self, table: str) -> list[dict[str, Any]]:
        """Return the commits of a table, newest first: see `AppendTable.commits`. KeyError for other names."""
        if table not in self._tables:
            raise KeyError(f"unknown table {table!r}; expected {', '.join(self._tables)}")
        return self._tables[table].commits()


def _label_order(rows: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the numbers of label rows by case, annotation and channel."""
    codes, texts = coded(rows["case_id"])
    annotations, names = coded(rows["annotation"])
    return np.lexsort((rows["channel"].to_numpy(), _rank(names)[annotations], _rank(texts)[codes]))


def _rank(texts: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.argsort(np.argsort(texts.to_numpy(zero_copy_only=False).astype(str), kind="stable"))


def sorted_labels(rows: pa.Table) -> pd.DataFrame:
    """Return label rows as `Tables.labels` does: sorted by case, annotation and channel."""
    return frame_of(rows.take(pa.array(_label_order(rows))))


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return rows as pandas: lists as numpy arrays, absent text as NaN, optional integers as Int32/Int64."""
    frame: pd.DataFrame = plain(table).to_pandas()
    for field in table.schema:
        if field.nullable and pa.types.is_integer(field.type):
            frame[field.name] = frame[field.name].astype("Int64" if field.type == pa.int64() else "Int32")
    return frame
