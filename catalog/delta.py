"""One Delta table that is only appended to, each key's rows at most once, however often and by whomever it is tried.

Every append carries, per key, an application transaction (Delta protocol, "Transaction Identifiers"): the log of one
version says which content of which key is in, and two commits that bring the same key conflict by protocol.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from catalog.errors import CommitRefused
from catalog.location import Location
from catalog.log_sync import LOG, sync_version
from catalog.publish import make_folder
from catalog.writing import naming_the_write

ATTEMPTS = 50
"""Commits tried before giving up; one is lost only when another writer committed in between."""

COMPACT_EVERY = 100
"""Versions after which the writer of the last one joins small files, so that reading stays fast over long ingests."""

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

Earlier = Mapping[str, int | None]
"""Keys about to be written, with the token committed for them earlier (None: never)."""

Rows = Callable[[DeltaTable, Earlier], pa.Table]


def token(*parts: str) -> int:
    """Return 62 bits of a hash of `parts`: the transaction version that stands for a content."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8]) >> 2


def _worded_as_stored(rows: pa.Table, table: DeltaTable) -> pa.Table:
    """Return the rows with unit and meaning as stored: Delta refuses a column described in other words."""
    stored = {field.name: field for field in pa.schema(table.schema().to_arrow())}
    fields = [
        field.with_metadata(stored[field.name].metadata if field.name in stored else field.metadata)
        for field in rows.schema
    ]
    return pa.Table.from_arrays(rows.columns, schema=pa.schema(fields))


class AppendTable:
    """A Delta table at `place`, created on first use. Safe to share between threads; processes each open their own.

    In an object store a commit is one conditional put of a log file, which two writers cannot both win.
    """

    def __init__(self, place: Location, schema: pa.Schema) -> None:
        self.place = place
        self.schema = schema
        self._table: DeltaTable | None = None
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[AppendTable], tuple[Location, pa.Schema]]:
        return (AppendTable, (self.place, self.schema))

    @property
    def name(self) -> str:
        """The name of the table, for messages."""
        return self.place.url.rpartition("/")[2]

    @cached_property
    def _files(self) -> fs.FileSystem:
        """Where the files of the table lie side by side."""
        if self.place.is_local:
            return fs.SubTreeFileSystem(str(self.place.folder), fs.LocalFileSystem())
        return fs.PyFileSystem(DeltaStorageHandler(self.place.url))

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
            made = DeltaTable.create(self.place.url, self.schema, mode="ignore", configuration=CONFIGURATION)
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

    def read(self, version: int | None = None, columns: list[str] | None = None, where: Any = None) -> pa.Table:
        """Return rows as Arrow, in no stated order. where: a pyarrow.dataset expression."""
        with self._lock:
            files = self.files_of(self.at(version))
        return self.rows_of(files, columns, where)

    def files_of(self, table: DeltaTable) -> list[str]:
        """Return the names of the files that make up one version of this table."""
        # deltalake gives URLs with quoted characters; the files of an unpartitioned table lie side by side.
        return [uri.rsplit("/", 1)[-1] for uri in table.file_uris()]

    def rows_of(self, files: list[str], columns: list[str] | None = None, where: Any = None) -> pa.Table:
        """Return the rows in `files` as Arrow; columns that older files lack are null.

        Read as they are, which for many small files is several times faster than deltalake's own dataset. Sound
        because these tables are only appended to: no partitions, no deletion vectors, no renamed columns.
        """
        if not files:
            return self.schema.empty_table().select(columns or self.schema.names)
        files_here = ds.dataset(files, schema=self.schema, format="parquet", filesystem=self._files)
        return files_here.to_table(columns=columns, filter=where)

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

    def committed(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the token last committed for each of `keys` that has one."""
        with self._lock:
            return _tokens(self.latest(), keys)

    def append(self, tokens: Mapping[str, int], rows: Rows) -> list[str]:
        """Append rows for the keys whose token is not the committed one, in one commit; return those keys.

        tokens: key -> token of what is to be in. rows: given the table version to be built upon and the keys to be
        written (each with its earlier token), returns their rows; called again when another writer came first.
        CommitRefused when that goes on, WriteFailed where the disk refuses.
        """
        for attempt in range(ATTEMPTS):
            with self._lock:
                table = self.latest()
                there = _tokens(table, tokens)
                fresh = {key: there.get(key) for key, value in tokens.items() if there.get(key) != value}
                if not fresh:
                    return []
                transactions = [Transaction(key, tokens[key]) for key in fresh]
                data = _worded_as_stored(rows(table, fresh), table)
                try:
                    with naming_the_write(self.place.url, data.nbytes):
                        write_deltalake(
                            table,
                            data,
                            mode="append",
                            schema_mode="merge",  # a column added since the table was made; older rows read as null
                            commit_properties=CommitProperties(app_transactions=transactions),
                        )
                        self._force(table)
                    if table.version() % COMPACT_EVERY == 0:
                        self._compact_quietly()
                    return list(fresh)
                except CommitFailedError as error:
                    self._table, last = None, error
            time.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))
        raise CommitRefused(
            f"table {self.name}: {ATTEMPTS} commits lost against other writers ({last}); try again later"
        )

    def _force(self, table: DeltaTable) -> None:
        """Force the version that `table` is at to the disk, where it lies on one."""
        if self.place.is_local:
            sync_version(self.place.folder, table.version())

    def _compact_quietly(self) -> None:
        try:
            self.compact()
        except DeltaError:
            # The rows are committed; joining files is for speed only and the next round does it again.
            self._table = None

    def compact(self) -> int:
        """Join small files into large ones and return how many were joined; no row, no old version changes."""
        with self._lock:
            metrics = self.latest().optimize.compact()
            self.latest().create_checkpoint()
            self._force(self.latest())
        return int(metrics["numFilesRemoved"])


def _tokens(table: DeltaTable, keys: Iterable[str]) -> dict[str, int]:
    found = {key: table.transaction_version(key) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def _in_one_line(error: Exception) -> str:
    """Return the message of the store without colours and line breaks, and without the page it answered with."""
    return " ".join(_COLOUR.sub("", str(error)).partition("<?xml")[0].split())
