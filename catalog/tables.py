"""`Tables`: cases, labels, twins, splits, quarantine and runs. A case exists when its row does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from catalog import schema
from catalog.delta import AppendTable, Earlier, token
from catalog.errors import CommitRefused
from catalog.location import Location
from catalog.splits import settled_folds
from catalog.twins import joined_groups

Row = dict[str, Any]
_KEY_BITS, _MANIFEST_BITS = 40, 22
_KEYS = {"cases": ("case_id",), "labels": ("case_id", "ingest_key", "annotation"), "runs": ("run_id",)}
"""Columns whose rows supersede each other, by `revision`."""


def _now() -> datetime:
    return datetime.now(UTC)


def _joined_token(name: str, manifest: str) -> int:
    # The high bits say what is there; the low ones let what was put right with other bytes supersede its old rows.
    return (token(name) >> (62 - _KEY_BITS) << _MANIFEST_BITS) | token(manifest) >> (62 - _MANIFEST_BITS)


def _same_name(one: int, other: int) -> bool:
    return one >> _MANIFEST_BITS == other >> _MANIFEST_BITS


class Tables:
    """The place `<root>/tables`: six Delta tables, created on first use, shared by any number of writers.

    root: where the lake lies, the same as for `Lake`: a folder, or a URL such as `s3://bucket/prefix`, whose
    credentials, region and endpoint are taken from the environment. now: the clock, for tests.
    """

    def __init__(self, root: str | Path | Location, now: Callable[[], datetime] = _now) -> None:
        self.location = Location.of(root)
        refused = "%" if self.location.is_local else "%#?"
        if any(sign in self.location.url for sign in refused):
            # deltalake 1.6.6 takes %20 for a quoted space and # for the end of a URL, then cannot find its own files.
            raise ValueError(f"tables root: found {str(root)!r}, expected a path without {' or '.join(refused)}")
        self._now = now
        folder = self.location / "tables"
        self._tables = {name: AppendTable(folder / name, schema.arrow_schema(name)) for name in schema.TABLES}

    def exist(self) -> bool:
        """Whether there are tables already; looking does not create them."""
        return self._tables["cases"].exists()

    # --- writing ---

    def commit_case(self, case_row: Row, label_rows: Sequence[Row] = ()) -> bool:
        """Make one case and its labels visible; return False where this version of it is the current one already.

        See `commit_cases`.
        """
        return bool(self.commit_cases([(case_row, label_rows)]))

    def commit_cases(self, cases: Sequence[tuple[Row, Sequence[Row]]]) -> list[str]:
        """Make cases with their labels visible, all at once; return the ids of those that were not there already.

        Each case row: the columns of `schema.CASES`; each label row: those of `schema.LABELS`, its `manifest` from
        `StoredCase.annotation_manifest`. `revision`, `committed_at` and `schema_version` are filled in. Labels are
        committed first, so whoever sees a case sees its labels. Repeating a commit changes nothing; of two writers of
        one case one is first and the other gets a list without it. Another version of a known case supersedes it.
        """
        rows = {str(case["case_id"]): case for case, _ in cases}
        if len(rows) != len(cases):
            raise ValueError(f"commit of {len(cases)} cases holds {len(rows)} ids, expected each case once")
        schema.arrow_rows("cases", [self._filled(case) for case in rows.values()])  # refused before its labels are in
        self.commit_labels([label for _, labels in cases for label in labels])
        keys = {f"case:{name}": name for name in rows}
        tokens = {key: _joined_token(rows[name]["ingest_key"], rows[name]["manifest"]) for key, name in keys.items()}

        def build(table: DeltaTable, fresh: Earlier) -> pa.Table:
            again = [keys[key] for key, earlier in fresh.items() if earlier is not None]
            return self._revised("cases", table, [rows[keys[key]] for key in fresh], again)

        return [keys[key] for key in self._tables["cases"].append(tokens, build)]

    def commit_labels(self, label_rows: Sequence[Row]) -> int:
        """Add label rows of any number of cases in one commit; return how many were not there already.

        An annotation of a case is committed whole, with one manifest: its rows again change nothing, CommitRefused for
        other classes under its name. Only files put right with other bytes (another manifest) supersede its rows.
        Labels show up in `labels()` while their version of the case is the current one.
        """
        grouped: dict[str, list[Row]] = {}
        for row in label_rows:
            schema.check_row("labels", row)
            key = f"labels:{row['case_id']}:{row['ingest_key']}:{row['annotation']}"
            grouped.setdefault(key, []).append(row)
        tokens = {key: self._label_token(key, rows) for key, rows in grouped.items()}

        def build(table: DeltaTable, fresh: Earlier) -> pa.Table:
            again = {key: earlier for key, earlier in fresh.items() if earlier is not None}
            for key, earlier in again.items():
                if not _same_name(earlier, tokens[key]):
                    raise CommitRefused(
                        f"{key}: found an annotation of that name with other classes, expected a fresh name; "
                        "annotations are added, never edited"
                    )
            cases = [grouped[key][0]["case_id"] for key in again]
            return self._revised("labels", table, [row for key in fresh for row in grouped[key]], cases)

        return sum(len(grouped[key]) for key in self._tables["labels"].append(tokens, build)) if grouped else 0

    def quarantine(self, rows: Sequence[Row]) -> int:
        """Record refused cases (`schema.QUARANTINE`); return how many were new by case, raw bytes and code."""
        keyed = {
            f"{row.get('dataset')}/{row.get('native_id')}:{row.get('raw_sha256')}:{row.get('code')}": row
            for row in rows
        }

        def build(_: DeltaTable, fresh: Earlier) -> pa.Table:
            return schema.arrow_rows("quarantine", [self._filled(keyed[key]) for key in fresh])

        return len(self._tables["quarantine"].append(dict.fromkeys(keyed, 1), build)) if keyed else 0

    def link_twins(self, rows: Sequence[Row]) -> int:
        """Record split groups that are one scan (`schema.TWINS`); return how many links were new by groups and how.

        From then on all cases of both groups, older ones too, show one split group and one fold.
        """
        keyed = {f"twins:{row['group_a']}:{row['group_b']}:{row['how']}": row for row in rows}

        def build(_: DeltaTable, fresh: Earlier) -> pa.Table:
            return schema.arrow_rows("twins", [self._filled(keyed[key]) for key in fresh])

        return len(self._tables["twins"].append(dict.fromkeys(keyed, 1), build)) if keyed else 0

    def deal_folds(self, rows: Sequence[Row]) -> int:
        """Record the folds of cases (`schema.SPLITS`); return how many had none. A case dealt once keeps its fold."""
        keyed = {f"splits:{row['case_id']}": row for row in rows}

        def build(_: DeltaTable, fresh: Earlier) -> pa.Table:
            return schema.arrow_rows("splits", [self._filled(keyed[key]) for key in fresh])

        return len(self._tables["splits"].append(dict.fromkeys(keyed, 1), build)) if keyed else 0

    def record_run(self, row: Row) -> bool:
        """Record a run, or what became of it (`schema.RUNS`); False where exactly this was recorded last."""
        schema.check_row("runs", row)
        key = f"run:{row['run_id']}"
        stamp = token(*(f"{name}={row[name]}" for name in sorted(row)))

        def build(table: DeltaTable, fresh: Earlier) -> pa.Table:
            again = [row["run_id"] for earlier in fresh.values() if earlier is not None]
            return self._revised("runs", table, [row], again)

        return bool(self._tables["runs"].append({key: stamp}, build))

    def compact(self) -> dict[str, int]:
        """Join the small files of each table; return how many were joined. Safe while others read and write."""
        return {name: table.compact() for name, table in self._tables.items()}

    def _filled(self, row: Row) -> Row:
        return {"committed_at": self._now(), **row, "revision": 1, "schema_version": schema.SCHEMA_VERSION}

    def _revised(self, name: str, table: DeltaTable, rows: list[Row], again: list[str]) -> pa.Table:
        """Return rows with the revision that follows the last committed one of their key in `table`.

        again: the case (or run) ids that have earlier rows; the others begin at 1.
        """
        keys, own = _KEYS[name], self._tables[name]
        last: dict[tuple[Any, ...], int] = {}
        if again:
            found = own.rows_of(own.files_of(table), [*keys, "revision"], pc.field(keys[0]).isin(again))
            for *key, revision in zip(*(column.to_pylist() for column in found.columns), strict=True):
                last[tuple(key)] = max(revision, last.get(tuple(key), 0))
        filled = [{**self._filled(row), "revision": last.get(tuple(row[k] for k in keys), 0) + 1} for row in rows]
        return schema.arrow_rows(name, filled)

    @staticmethod
    def _label_token(key: str, rows: list[Row]) -> int:
        names = sorted(row["class_name"] for row in rows)
        if len(set(names)) != len(names):
            raise ValueError(f"{key}: classes {names} hold one twice, expected one row a class")
        if len({row["manifest"] for row in rows}) != 1:
            raise ValueError(f"{key}: rows with different manifests, expected that of the annotation in each")
        return _joined_token(",".join(names), rows[0]["manifest"])

    # --- reading ---

    def has(self, case_id: str, ingest_key: str) -> bool:
        """Whether this version of the case is the current one, so that ingesting it again would change nothing."""
        there = self._tables["cases"].committed([f"case:{case_id}"]).get(f"case:{case_id}")
        return there is not None and _same_name(there, _joined_token(ingest_key, ""))

    def current_keys(self, dataset: str | None = None) -> dict[str, str]:
        """Return the ingest key of the current version of every case: `has` for many cases in one look."""
        where = None if dataset is None else pc.field("dataset") == dataset
        rows = self._tables["cases"].read(columns=["case_id", "ingest_key", "revision"], where=where).to_pylist()
        return {row["case_id"]: row["ingest_key"] for row in sorted(rows, key=lambda row: row["revision"])}

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
        at_versions: Mapping[str, int] | None = None,
        history: bool = False,
    ) -> pd.DataFrame:
        """Return the current version of each case, sorted by case id; columns of `schema.CASES`, no fingerprint.

        dataset, role, fold, case_ids: keep only those. at_versions: as `versions()` returned them earlier.
        history: superseded versions too. Groups linked as twins show the smallest of their names, and all scans of a
        group one fold (`splits.settled_folds`); an `at_versions` from before there was a table `twins` or `splits`
        sees that of today.
        """
        table = self._tables["cases"]
        version = (at_versions or {}).get("cases", table.version())
        where = _all_of(
            None if dataset is None else pc.field("dataset") == dataset,
            None if case_ids is None else pc.field("case_id").isin(list(case_ids)),
        )
        rows = _frame(
            table.read(version, columns=[name for name in schema.CASES if name != "fingerprint"], where=where)
        )
        # Folds and revisions are settled over the whole table (few narrow columns), whatever is asked for.
        narrow = ["case_id", "revision", "split_group", "fold", "role", "committed_at", "schema_version"]
        keys = rows[narrow] if where is None else _frame(table.read(version, columns=narrow))
        joined = self._joined((at_versions or {}).get("twins"))
        dealt = _frame(self._tables["splits"].read((at_versions or {}).get("splits")))
        for frame in (rows, keys):
            frame["split_group"] = frame["split_group"].map(lambda group: joined.get(group, group))
        rows["fold"] = (
            rows["split_group"].map(settled_folds(keys, dealt, joined)).where(rows["role"] == "train").astype("Int32")
        )
        if not history:
            newest = keys.groupby("case_id")["revision"].max()
            rows = rows[rows["revision"] == rows["case_id"].map(newest)]
        if role is not None:
            rows = rows[rows["role"] == role]
        if fold is not None:
            rows = rows[rows["fold"] == fold]
        return rows.sort_values(["case_id", "revision"]).reset_index(drop=True)

    def group_members(self, split_group: str) -> list[str]:
        """Return the ids of the cases whose current version belongs to a split group or one linked to it, sorted."""
        joined = self._joined(None)
        wanted = joined.get(split_group, split_group)
        groups = self.written_groups()
        return sorted(case for case, (_, group) in groups.items() if joined.get(group, group) == wanted)

    def written_groups(self) -> dict[str, tuple[int, str]]:
        """Return case id -> (revision, split group as written) of the current version of every case."""
        rows = self._tables["cases"].read(columns=["case_id", "revision", "split_group"]).to_pylist()
        ordered = sorted(rows, key=lambda row: row["revision"])
        return {row["case_id"]: (row["revision"], row["split_group"]) for row in ordered}

    def fingerprints(self, versions: Mapping[str, int]) -> dict[str, str]:
        """Return the stored fingerprint of each case at the revision given for it, where it has one."""
        narrow = ["case_id", "revision", "fingerprint"]
        few = pc.field("case_id").isin(list(versions)) if len(versions) < 1000 else None
        rows = self._tables["cases"].read(columns=narrow, where=few).to_pylist()
        wanted = [row for row in rows if row["fingerprint"] and versions.get(row["case_id"]) == row["revision"]]
        return {row["case_id"]: row["fingerprint"] for row in wanted}

    def _joined(self, version: int | None) -> dict[str, str]:
        links = self._tables["twins"].read(version, columns=["group_a", "group_b"]).to_pylist()
        return joined_groups((row["group_a"], row["group_b"]) for row in links)

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
        at_versions: Mapping[str, int] | None = None,
        history: bool = False,
    ) -> pd.DataFrame:
        """Return the labels of current cases, sorted by case, annotation and channel.

        Columns: those of `schema.LABELS` (or `columns` of them), and `dataset`, `role`, `fold`, `path` of the case.
        The keyword arguments keep only rows with that value. history: labels on superseded versions of cases too.
        """
        versions = at_versions or {"cases": self._tables["cases"].version()}
        cases = self.cases(dataset, case_ids=case_ids, at_versions=versions, history=history)
        cases = cases[["case_id", "ingest_key", "dataset", "role", "fold", "path"]]
        where = _all_of(
            *(
                None if value is None else pc.field(name) == value
                for name, value in {
                    "class_name": class_name,
                    "state": state,
                    "annotation": annotation,
                    "model_version": model_version,
                }.items()
            ),
            None if dataset is None and case_ids is None else pc.field("case_id").isin(cases["case_id"].tolist()),
        )
        needed = ["case_id", "ingest_key", "annotation", "channel", "revision"]
        wanted = None if columns is None else list(dict.fromkeys([*needed, *columns]))
        rows = _frame(self._tables["labels"].read(versions.get("labels"), columns=wanted, where=where))
        rows = rows[rows["revision"] == rows.groupby(list(_KEYS["labels"]))["revision"].transform("max")]
        joined = rows.merge(cases.drop_duplicates(["case_id", "ingest_key"]), on=["case_id", "ingest_key"], how="inner")
        return joined.sort_values(["case_id", "annotation", "channel"]).reset_index(drop=True)

    def quarantined(self, dataset: str | None = None, *, at_versions: Mapping[str, int] | None = None) -> pd.DataFrame:
        """Return the refused cases, oldest first, with the columns of `schema.QUARANTINE`."""
        where = None if dataset is None else pc.field("dataset") == dataset
        rows = _frame(self._tables["quarantine"].read((at_versions or {}).get("quarantine"), where=where))
        return rows.sort_values(["committed_at", "dataset", "native_id"]).reset_index(drop=True)

    def runs(self, kind: str | None = None, *, at_versions: Mapping[str, int] | None = None) -> pd.DataFrame:
        """Return the latest record of every run, by start, with the columns of `schema.RUNS`."""
        where = None if kind is None else pc.field("kind") == kind
        rows = _frame(self._tables["runs"].read((at_versions or {}).get("runs"), where=where))
        newest = rows.groupby("run_id")["revision"].transform("max")
        return rows[rows["revision"] == newest].sort_values(["started", "run_id"]).reset_index(drop=True)

    def commits(self, table: str) -> list[dict[str, Any]]:
        """Return the commits of a table, newest first: see `AppendTable.commits`. KeyError for other names."""
        if table not in self._tables:
            raise KeyError(f"unknown table {table!r}; expected {', '.join(self._tables)}")
        return self._tables[table].commits()


def _all_of(*conditions: pc.Expression | None) -> pc.Expression | None:
    """Return the conjunction of the conditions that are not None; None for no condition."""
    joined: pc.Expression | None = None
    for condition in conditions:
        if condition is not None:
            joined = condition if joined is None else joined & condition
    return joined


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return rows as pandas: lists as numpy arrays, absent text as NaN, optional integers as Int32/Int64."""
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        if field.nullable and pa.types.is_integer(field.type):
            frame[field.name] = frame[field.name].astype("Int64" if field.type == pa.int64() else "Int32")
    return frame
