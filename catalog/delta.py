"""One Delta table that is only appended to, each row at most once, however often and by whomever it is tried.

A writer looks up what the table's newest version holds under the names it brings, and appends what is not there. Its
commit carries an application transaction (Delta protocol, "Transaction Identifiers") for each slot that these names
fall into: if another writer committed to one of the slots in between, the commit conflicts by protocol, and the look is
repeated. The slots are few and fixed, so the log does not grow with the names.
"""

from __future__ import annotations

import random
import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from catalog.columns import ParquetColumns, Where, plain
from catalog.errors import CommitRefused
from catalog.location import Location
from catalog.log_sync import LOG, sync_version
from catalog.migration import PROPERTY, bring_forward, refuse_newer
from catalog.publish import make_folder
from catalog.schema import SCHEMA_VERSION
from catalog.writing import naming_the_write

ATTEMPTS = 50
"""Commits tried before giving up; one is lost only when another writer committed in between."""

COMPACT_EVERY = 100
"""Versions after which the writer of the last one joins small files, so that reading stays fast over long ingests."""

SLOTS = 256
"""Names that fall into one slot wait for each other: enough for eight writers of single cases to seldom meet."""

COMPACTED_BY = "ctfactory.compactedBy"
"""The property that every compaction changes before it begins, so that of two at once only the later one commits."""

WRITTEN = WriterProperties(compression="ZSTD", max_row_group_size=16_384)
"""Row groups of 16,384 rows: the manifests of one fit a Parquet dictionary, and one case is read without the others."""

VERSIONS_KEPT = 16
"""Versions whose list of files is kept in memory."""

CONFIGURATION = {
    "delta.appendOnly": "true",
    # Runs record table versions and read them again years later, so the log and superseded files are kept.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    # Statistics of the first column (the case) are enough to skip files; those of all 38 double a commit's time.
    "delta.dataSkippingNumIndexedCols": "1",
}

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Build = Callable[[list[dict[str, Any]]], pa.Table]
"""Given the rows that the table holds under the names to be written, returns the rows to append (or none)."""


def slot(name: str) -> str:
    """Return the transaction that stands for a name, among `SLOTS` of them."""
    return f"slot-{zlib.crc32(name.encode()) % SLOTS}"


def _worded_as_stored(rows: pa.Table, table: DeltaTable) -> pa.Table:
    """Return the rows with unit, meaning and optionality as stored: Delta refuses a column described otherwise."""
    stored = pa.schema(table.schema().to_arrow())
    return pa.Table.from_arrays(rows.columns, schema=pa.schema([stored.field(name) for name in rows.column_names]))


class AppendTable:
    """A Delta table at `place`, created on first use. Safe to share between threads; processes each open their own.

    named_by: the column by whose values rows are looked up before an append; rows that supersede each other or must
    not be doubled have the same value there. In an object store a commit is one conditional put of a log file, which
    two writers cannot both win.
    """

    def __init__(self, place: Location, schema: pa.Schema, named_by: str) -> None:
        self.place = place
        self.schema = schema
        self.named_by = named_by
        self._columns = ParquetColumns(place, schema)
        self._files: OrderedDict[int, list[str]] = OrderedDict()
        self._table: DeltaTable | None = None
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[AppendTable], tuple[Location, pa.Schema, str]]:
        return (AppendTable, (self.place, self.schema, self.named_by))

    @property
    def name(self) -> str:
        """The name of the table, for messages."""
        return self.place.url.rpartition("/")[2]

    def _open(self) -> DeltaTable:
        try:
            return DeltaTable(self.place.url)
        except TableNotFoundError:
            with naming_the_write(self.place.url, 0):
                return self._create()
        except OSError as error:
            if self.place.is_local:
                raise
            raise OSError(
                f"table {self.place}: {_in_one_line(error)}; check that the bucket is there, and the variables with "
                "its credentials, region and endpoint (AWS_ENDPOINT_URL and AWS_ALLOW_HTTP for a server of your own)"
            ) from error

    def _create(self) -> DeltaTable:
        if self.place.is_local:
            make_folder(self.place.folder / LOG)
        try:
            made = DeltaTable.create(
                self.place.url,
                self.schema,
                mode="ignore",
                configuration={**CONFIGURATION, PROPERTY: str(SCHEMA_VERSION)},
                raise_if_key_not_exists=False,
            )
            self._force(made)
            return made
        except DeltaError:
            # Another process created it between our look and our commit.
            return DeltaTable(self.place.url)

    def exists(self) -> bool:
        """Whether the table is there already; looking does not create it."""
        return bool(DeltaTable.is_deltatable(self.place.url))

    def latest(self) -> DeltaTable:
        """Return the table at its newest committed version."""
        with self._lock:
            if self._table is None:
                self._table = self._open()
            else:
                self._table.update_incremental()
            refuse_newer(self._table)
            return self._table

    def at(self, version: int | None) -> DeltaTable:
        """Return the table as of `version`, or its newest for None; ValueError where there is no such version."""
        if version is None:
            return self.latest()
        if self._table is not None and self._table.version() == version:
            return self._table
        try:
            return DeltaTable(self.place.url, version=version)
        except DeltaError as error:
            raise ValueError(
                f"table {self.name}: version {version} asked for, expected 0..{self.latest().version()}; "
                "take versions from a run's record"
            ) from error

    def read(
        self,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Where | None = None,
        *,
        coded: bool = False,
    ) -> pa.Table:
        """Return rows as Arrow, in no stated order; columns that older files lack are null.

        where: column -> the value, or the collection of values, of the rows to keep. coded: text as dictionaries.
        Files are read as they are, which is sound because these tables are only appended to: no partitions, no
        deletion vectors, no renamed columns.
        """
        with self._lock:
            files = self._files_of(self.at(version))
        rows = self._columns.rows(files, self.schema.names if columns is None else columns, where or {})
        return rows if coded else plain(rows)

    def _files_of(self, table: DeltaTable) -> list[str]:
        """Return the names of the files that make up one version of this table."""
        version = table.version()
        if version not in self._files:
            # deltalake gives URLs with quoted characters; the files of an unpartitioned table lie side by side.
            self._files[version] = [uri.rsplit("/", 1)[-1] for uri in table.file_uris()]
            if len(self._files) > VERSIONS_KEPT:
                self._files.popitem(last=False)
        return self._files[version]

    def version(self) -> int:
        """Return the number of the newest committed version."""
        with self._lock:
            return int(self.latest().version())

    def commits(self) -> list[dict[str, Any]]:
        """Return one record a version, newest first: version, committed_at (UTC), operation, rows added.

        Joining small files is a version too, with operation OPTIMIZE and no row added.
        """
        with self._lock:
            entries = self.latest().history()
        return [
            {
                "version": int(entry["version"]),
                "committed_at": datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
                "operation": str(entry["operation"]),
                "rows": int(entry.get("operationMetrics", {}).get("num_added_rows", 0)),
            }
            for entry in entries
        ]

    def append(self, names: Collection[str], build: Build, columns: Sequence[str]) -> pa.Table:
        """Append what `build` returns, in one commit, and return it; no commit where that is no row.

        names: values of the column `named_by` in the rows to be written. build: is given the rows that the newest
        version holds under these names (`columns` of them, text as text) and called again when another writer of such
        a name came first. CommitRefused when that goes on, WriteFailed where the disk refuses.
        """
        slots = sorted({slot(name) for name in names})
        for attempt in range(ATTEMPTS):
            with self._lock:
                table = self.latest()
                try:
                    self._bring_forward(table)  # before the look, which must be at the version built upon
                    found = self._columns.rows(self._files_of(table), columns, {self.named_by: names})
                    rows = build(plain(found).to_pylist())
                    if rows.num_rows == 0:
                        return rows
                    with naming_the_write(self.place.url, rows.nbytes):
                        write_deltalake(
                            table,
                            _worded_as_stored(rows, table),
                            mode="append",
                            writer_properties=WRITTEN,
                            commit_properties=CommitProperties(
                                app_transactions=[Transaction(one, table.version() + 1) for one in slots]
                            ),
                        )
                        self._force(table)
                    if table.version() % COMPACT_EVERY == 0:
                        self._compact_quietly()
                    return rows
                except CommitFailedError as error:
                    self._table, last = None, error
            time.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))
        raise CommitRefused(
            f"table {self.name}: {ATTEMPTS} commits lost against other writers ({last}); try again later"
        )

    def _force(self, table: DeltaTable, after: int | None = None) -> None:
        """Force the version that `table` is at to the disk, where it lies on one; or all versions after `after`."""
        if self.place.is_local:
            for version in range(table.version() if after is None else after + 1, table.version() + 1):
                sync_version(self.place.folder, version)

    def _bring_forward(self, table: DeltaTable) -> list[str]:
        before = table.version()
        with naming_the_write(self.place.url, 0):
            lacking = bring_forward(table, self.schema)
            self._force(table, after=before)
        return lacking

    def migrate(self) -> list[str]:
        """Bring the table to the schema version of this code, as the first append does; return the columns added."""
        for _ in range(ATTEMPTS):
            with self._lock:
                try:
                    return self._bring_forward(self.latest())
                except CommitFailedError as error:
                    self._table, last = None, error
        raise CommitRefused(f"table {self.name}: {ATTEMPTS} migrations lost against other writers ({last}); try again")

    def _compact_quietly(self) -> None:
        try:
            self.compact()
        except (DeltaError, OSError):
            # The rows are committed; joining files is for speed only and the next round does it again.
            self._table = None

    def compact(self) -> int:
        """Join small files into large ones and return how many were joined; no row, no old version changes.

        Of two that do so at once one joins them, and the other returns 0.
        """
        with self._lock:
            table = self.latest()
            before = table.version()
            if len(self._files_of(table)) < 2:
                return 0
            try:
                # deltalake 1.6.6 lets two compactions of the same files both succeed, which doubles their rows, but
                # fails one during which the properties were changed. So each changes them first.
                table.alter.set_table_properties({COMPACTED_BY: uuid4().hex}, raise_if_not_exists=False)
                metrics = table.optimize.compact(writer_properties=WRITTEN)
            except CommitFailedError:
                self._table = None
                return 0
            self._force(table, after=before)
        return int(metrics["numFilesRemoved"])


def _in_one_line(error: Exception) -> str:
    """Return the message of the store without colours and line breaks, and without the page it answered with."""
    return " ".join(_COLOUR.sub("", str(error)).partition("<?xml")[0].split())
