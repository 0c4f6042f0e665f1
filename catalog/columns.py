"""Rows of Parquet files that never change; the narrow columns stay in memory, so a later look reads only new files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from numpy.typing import NDArray

from catalog.location import Location

KEPT_BYTES = 512 * 2**20
"""Memory for columns of all tables in this process; those not asked for longest make room."""

NOT_KEPT = ("manifest", "sampled_voxels", "fingerprint", "steps")
"""Columns that are nearly all bytes of a table: read when asked for, and only the row groups with rows asked for."""

LACKED = {"revision": 1}
"""What rows of older files mean by lacking a column, where it is not null: labels had no revisions at first."""

READERS = 8
"""Files read at the same time: in an object store each is a wait."""

CODED = pa.dictionary(pa.int32(), pa.string())
"""How text is held: each text once a file, and a number a row."""

Where = Mapping[str, Any]
"""Column -> the value, or the collection of values, of the rows to keep; None keeps all."""


class _Kept:
    """Columns by place, file and name, the least used dropped first. Safe between threads."""

    def __init__(self) -> None:
        self._columns: OrderedDict[tuple[str, str, str], pa.Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str, str]) -> pa.Array | None:
        with self._lock:
            if key in self._columns:
                self._columns.move_to_end(key)
            return self._columns.get(key)

    def put(self, key: tuple[str, str, str], column: pa.Array) -> None:
        with self._lock:
            if key in self._columns:
                return
            self._columns[key] = column
            self._bytes += column.nbytes
            while self._bytes > KEPT_BYTES and len(self._columns) > 1:
                self._bytes -= self._columns.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._columns.clear()
            self._bytes = 0


_KEPT = _Kept()


def forget() -> None:
    """Drop all kept columns, to give their memory back or to measure a first look."""
    _KEPT.clear()


class ParquetColumns:
    """The Parquet files side by side at `place`, written once each; columns of `schema` that one lacks are null."""

    def __init__(self, place: Location, schema: pa.Schema) -> None:
        self.place = place
        self.schema = schema

    @cached_property
    def _files(self) -> fs.FileSystem:
        if self.place.is_local:
            return fs.SubTreeFileSystem(str(self.place.folder), fs.LocalFileSystem())
        return fs.PyFileSystem(DeltaStorageHandler(self.place.url))

    def rows(self, files: Sequence[str], columns: Sequence[str], where: Where) -> pa.Table:
        """Return the rows of `files` that `where` keeps, file by file; text is `CODED` but for `NOT_KEPT` columns."""
        asked = {name: values for name, values in where.items() if values is not None}
        narrow = [name for name in columns if name not in NOT_KEPT]
        wide = [name for name in columns if name in NOT_KEPT]
        chosen = {file: _chosen(held, asked) for file, held in self._held(files, list(asked)).items()}
        hit = [file for file, mask in chosen.items() if mask is None or mask.any()]
        parts = []
        for file, held in self._held(hit, narrow).items():
            mask = chosen[file]
            arrays = held if mask is None else {name: array.filter(pa.array(mask)) for name, array in held.items()}
            if wide:
                arrays |= self._wide(file, wide, mask)
            parts.append(pa.table([arrays[name] for name in columns], schema=self._schema(columns)))
        return pa.concat_tables(parts) if parts else self._schema(columns).empty_table()

    def _schema(self, columns: Sequence[str]) -> pa.Schema:
        fields = [self.schema.field(name) for name in columns]
        return pa.schema([field.with_type(CODED) if _is_coded(field) else field for field in fields])

    def _held(self, files: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, pa.Array]]:
        """Return file -> name -> column, read where it is not kept."""
        held = {file: {name: _KEPT.get((self.place.url, file, name)) for name in names} for file in files}
        lacking = [file for file, columns in held.items() if None in columns.values()]
        if not lacking:
            return held

        def read(file: str) -> None:
            missing = [name for name, column in held[file].items() if column is None]
            with self._open(file, missing) as opened:
                held[file] |= {name: self._whole(column) for name, column in self._columns(opened, missing).items()}
            for name in missing:
                _KEPT.put((self.place.url, file, name), held[file][name])

        with ThreadPoolExecutor(min(READERS, len(lacking))) as pool:
            list(pool.map(read, lacking))
        return held

    def _open(self, file: str, names: Sequence[str]) -> pq.ParquetFile:
        texts = [name for name in names if _is_coded(self.schema.field(name))]
        try:
            return pq.ParquetFile(file, filesystem=self._files, read_dictionary=texts, pre_buffer=True)
        except KeyError:  # an older file without one of them
            return pq.ParquetFile(file, filesystem=self._files, pre_buffer=True)

    def _columns(
        self, opened: pq.ParquetFile, names: Sequence[str], groups: Sequence[int] | None = None
    ) -> dict[str, pa.ChunkedArray]:
        there = [name for name in names if name in opened.schema_arrow.names]
        groups = range(opened.num_row_groups) if groups is None else groups
        table = opened.read_row_groups(list(groups), columns=there)
        found: dict[str, pa.ChunkedArray] = {}
        for field in self._schema(names):
            if field.name in there:
                found[field.name] = table[field.name].cast(field.type)
            else:
                found[field.name] = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
            if field.name in LACKED:
                found[field.name] = found[field.name].fill_null(LACKED[field.name])
        return found

    @staticmethod
    def _whole(column: pa.ChunkedArray) -> pa.Array:
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def _wide(self, file: str, names: Sequence[str], mask: NDArray[np.bool_] | None) -> dict[str, pa.ChunkedArray]:
        with self._open(file, names) as opened:
            if mask is None:
                return self._columns(opened, names)
            sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
            parts = np.split(mask, np.cumsum(sizes)[:-1])
            groups = [number for number, part in enumerate(parts) if part.any()]
            within = pa.array(np.concatenate([parts[number] for number in groups]))
            return {name: column.filter(within) for name, column in self._columns(opened, names, groups).items()}


def _is_coded(field: pa.Field) -> bool:
    return field.type == pa.string() and field.name not in NOT_KEPT


def _chosen(columns: Mapping[str, pa.Array], where: Where) -> NDArray[np.bool_] | None:
    chosen = None
    for name, values in where.items():
        if chosen is None or chosen.any():
            mask = _matches(columns[name], values)
            chosen = mask if chosen is None else chosen & mask
    return chosen


def _matches(column: pa.Array, values: Any) -> NDArray[np.bool_]:
    several = isinstance(values, Collection) and not isinstance(values, str)
    coded = pa.types.is_dictionary(column.type)
    texts = column.dictionary if coded else column
    allowed = pa.array(values if several else [values], texts.type)
    found = pc.is_in(texts, value_set=allowed).to_numpy(zero_copy_only=False)
    return np.append(found, False)[codes_of(column)] if coded else found  # code -1: null


def codes_of(column: pa.DictionaryArray) -> NDArray[np.int32]:
    """Return the code of each row in the column's own dictionary, -1 for null."""
    codes: NDArray[np.int32] = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes


def coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Return a text column as codes (-1: null) into one array of texts, each text once."""
    one = column.unify_dictionaries().combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return codes_of(one), one.dictionary


def plain(table: pa.Table) -> pa.Table:
    """Return the rows with text as text."""
    fields = [field.with_type(pa.string()) if field.type == CODED else field for field in table.schema]
    return table.cast(pa.schema(fields))
