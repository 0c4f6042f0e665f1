"""`Tables`: cases, labels and all else that is known of them. A case exists when its row does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from catalog import schema
from catalog.errors import CommitRefused
from catalog.table_reads import TableReads

Row = dict[str, Any]


class Tables(TableReads):
    """The place `<root>/tables`: eight Delta tables, created on first use, shared by any number of writers.

    root: where the lake lies, the same as for `Lake`: a folder, or a URL such as `s3://bucket/prefix`, whose
    credentials, region and endpoint are taken from the environment. now: the clock, for tests.
    """

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
        one case one is first and the other gets a list without it. Another version of a known case supersedes it; a
        withdrawn case stays so and is not in the list.
        """
        rows = {str(case["case_id"]): case for case, _ in cases}
        if len(rows) != len(cases):
            raise ValueError(f"commit of {len(cases)} cases holds {len(rows)} ids, expected each case once")
        schema.arrow_rows("cases", [self._filled(case) for case in rows.values()])  # refused before its labels are in
        self.commit_labels([label for _, labels in cases for label in labels])

        def build(found: list[Row]) -> pa.Table:
            last = _latest("cases", found)
            fresh = []
            for name, row in rows.items():
                before = last.get((name,))
                if before is None or (before["withdrawn"] is None and _differ(before, row, ("ingest_key", "manifest"))):
                    fresh.append(self._filled(row, before))
            return schema.arrow_rows("cases", fresh)

        columns = ["case_id", "revision", "ingest_key", "manifest", "withdrawn"]
        return _ids(self._tables["cases"].append(rows, build, columns))

    def withdraw(self, case_ids: Collection[str], reason: str) -> list[str]:
        """Take cases out of use (found faulty later, consent withdrawn); return the ids of those that were in use.

        A row that says why supersedes each case's: it no longer shows in `cases()`, `labels()`, coverage or training,
        no ingest brings it back, and its split group keeps its fold. Earlier versions of the tables stay readable, so
        a run that used the case can still be explained; for the same reason its files stay referenced and garbage
        collection keeps them. KeyError for a case that is not there: then none is withdrawn.
        """
        if not reason.strip():
            raise ValueError("withdraw: found no reason, expected why the cases must not be used")
        return self._mark(case_ids, reason.strip())

    def restore(self, case_ids: Collection[str]) -> list[str]:
        """Bring withdrawn cases back as they were; return the ids of those that were withdrawn. KeyError as above."""
        return self._mark(case_ids, None)

    def _mark(self, case_ids: Collection[str], reason: str | None) -> list[str]:
        def build(found: list[Row]) -> pa.Table:
            last = _latest("cases", found)
            if unknown := sorted(set(case_ids) - {row["case_id"] for row in found}):
                raise KeyError(f"unknown cases {', '.join(unknown)}; `ctfactory catalog query` lists them")
            fresh = []
            for before in (last[(name,)] for name in dict.fromkeys(case_ids)):
                if (before["withdrawn"] is None) != (reason is None):
                    row = {name: value for name, value in before.items() if name not in schema.FILLED_IN}
                    marks = {"withdrawn": reason, "withdrawn_at": None if reason is None else self._now()}
                    fresh.append(self._filled(row | marks, before))
            return schema.arrow_rows("cases", fresh)

        return _ids(self._tables["cases"].append(case_ids, build, list(schema.CASES)))

    def commit_labels(self, label_rows: Sequence[Row]) -> int:
        """Add label rows of any number of cases in one commit; return how many were not there already.

        An annotation of a case is committed whole, with one manifest: its rows again change nothing, CommitRefused for
        other classes under its name. Only files put right with other bytes (another manifest) supersede its rows.
        Labels show up in `labels()` while their version of the case is the current one.
        """
        grouped: dict[tuple[Any, ...], list[Row]] = {}
        for row in label_rows:
            schema.check_row("labels", row)
            grouped.setdefault(schema.key_of("labels", row), []).append(row)
        for key, rows in grouped.items():
            _check_annotation(":".join(key), rows)
        if not grouped:
            return 0

        def build(found: list[Row]) -> pa.Table:
            last = _latest("labels", found)
            classes: dict[tuple[Any, ...], set[str]] = {}
            for row in found:
                classes.setdefault(schema.key_of("labels", row), set()).add(row["class_name"])
            fresh = []
            for key, rows in grouped.items():
                before = last.get(key)
                if before is not None and classes[key] != {row["class_name"] for row in rows}:
                    raise CommitRefused(
                        f"labels {':'.join(key)}: found an annotation of that name with other classes, expected a "
                        "fresh name; annotations are added, never edited"
                    )
                if before is None or _differ(before, rows[0], ("manifest",)):
                    fresh += [self._filled(row, before) for row in rows]
            return schema.arrow_rows("labels", fresh)

        columns = [*schema.KEYS["labels"], "class_name", "revision", "manifest"]
        return len(self._tables["labels"].append({key[0] for key in grouped}, build, columns))

    def quarantine(self, rows: Sequence[Row]) -> int:
        """Record refused cases (`schema.QUARANTINE`); return how many were new by case, raw bytes and code."""
        return self._add_once("quarantine", rows)

    def link_twins(self, rows: Sequence[Row]) -> int:
        """Record split groups that are one scan (`schema.TWINS`); return how many links were new by groups and how.

        From then on all cases of both groups, older ones too, show one split group and one fold.
        """
        return self._add_once("twins", rows)

    def deal_folds(self, rows: Sequence[Row]) -> int:
        """Record the folds of cases (`schema.SPLITS`); return how many had none. A case dealt once keeps its fold."""
        return self._add_once("splits", rows)

    def record_events(self, rows: Sequence[Row]) -> int:
        """Record what was decided about labels (`schema.LABEL_EVENTS`); return how many events were new."""
        return self._add_once("label_events", rows)

    def record_moves(self, rows: Sequence[Row]) -> int:
        """Record moves of the champion (`schema.PROMOTIONS`); return how many were new."""
        return self._add_once("promotions", rows)

    def _add_once(self, table: str, rows: Sequence[Row]) -> int:
        keyed = {schema.key_of(table, row): row for row in rows}
        if not keyed:
            return 0

        def build(found: list[Row]) -> pa.Table:
            there = {schema.key_of(table, row) for row in found}
            return schema.arrow_rows(table, [self._filled(row) for key, row in keyed.items() if key not in there])

        names = {str(row.get(schema.NAMED_BY[table])) for row in keyed.values()}
        return len(self._tables[table].append(names, build, schema.KEYS[table]))

    def record_run(self, row: Row) -> bool:
        """Record a run, or what became of it (`schema.RUNS`); False where exactly this was recorded last."""
        schema.check_row("runs", row)
        told = [name for name in schema.RUNS if name not in schema.FILLED_IN]

        def build(found: list[Row]) -> pa.Table:
            before = _latest("runs", found).get((row["run_id"],))
            again = before is not None and not _differ(before, row, told)
            return schema.arrow_rows("runs", [] if again else [self._filled(row, before)])

        return len(self._tables["runs"].append([row["run_id"]], build, [*told, "revision"])) > 0

    def compact(self) -> dict[str, int]:
        """Join the small files of each table; return how many were joined. Safe while others read and write."""
        return {name: table.compact() for name, table in self._tables.items()}

    def migrate(self) -> dict[str, list[str]]:
        """Bring every table to the schema version of this code; return the columns that each was given.

        The first append to a table does the same. No row changes, and earlier versions stay readable.
        """
        return {name: table.migrate() for name, table in self._tables.items()}

    def _filled(self, row: Row, before: Row | None = None) -> Row:
        """Return a row with what is filled in, as the successor of `before`."""
        revision = 1 if before is None else before["revision"] + 1
        return {"committed_at": self._now(), **row, "revision": revision, "schema_version": schema.SCHEMA_VERSION}


def _ids(rows: pa.Table) -> list[str]:
    return [str(name) for name in rows["case_id"].to_pylist()]


def _latest(table: str, rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
    """Return the row of the highest revision of each key."""
    return {schema.key_of(table, row): row for row in sorted(rows, key=lambda row: int(row["revision"]))}


def _differ(one: Row, other: Row, columns: Sequence[str]) -> bool:
    return any(one[name] != other.get(name) for name in columns)


def _check_annotation(name: str, rows: Sequence[Row]) -> None:
    names = sorted(row["class_name"] for row in rows)
    if len(set(names)) != len(names):
        raise ValueError(f"labels {name}: classes {names} hold one twice, expected one row a class")
    if len({row["manifest"] for row in rows}) != 1:
        raise ValueError(f"labels {name}: rows with different manifests, expected that of the annotation in each")
