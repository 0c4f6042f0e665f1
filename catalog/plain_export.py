"""The current rows as plain files, for whoever does not read Delta tables: Parquet or CSV, whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq

from catalog import current
from catalog.current import current_rows, current_schema
from catalog.publish import make_folder, sync_tree, written_aside
from catalog.tables import Tables

Format = Literal["parquet", "csv"]
CONTENTS = "catalog.json"
"""File of an export that says what it is: table versions, rows and the meaning of every column."""


@dataclass(frozen=True)
class Export:
    """What was written: the folder, rows of each table, and the table versions they are of."""

    folder: Path
    rows: dict[str, int]
    table_versions: dict[str, int]


def export_tables(tables: Tables, folder: Path, form: str, *, replace: bool = False) -> Export:
    """Write the current rows of each table to `folder`, as one file a table and `catalog.json`; all of one moment.

    form: parquet (unit and meaning in each field's metadata) or csv (lists as JSON text, null as nothing, empty text
    as ""). The folder becomes visible whole. FileExistsError where it holds anything; with `replace`, where it holds
    anything but an earlier export.
    """
    if form not in get_args(Format):
        raise ValueError(f"export: format {form!r}, expected {' or '.join(get_args(Format))}")
    folder = folder.resolve()  # beside what a link points to
    _check_free(folder, replace=replace)
    make_folder(folder.parent)
    leftover = folder.with_name(f".{folder.name}.partial")
    if leftover.is_dir():
        shutil.rmtree(leftover)  # of an export that was killed
    versions = tables.versions()
    with written_aside(folder, folder.name) as partial:
        rows = {}
        for name in current.TABLES:
            table = current_rows(tables, name, versions)
            rows[name] = table.num_rows
            _write(table, partial / f"{name}.{form}", form)
        contents = {"format": form, "table_versions": versions, "rows": rows, "columns": _columns()}
        (partial / CONTENTS).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
        sync_tree(partial)
        _put_in_place(partial, folder)
    return Export(folder, rows, versions)


def _check_free(folder: Path, *, replace: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"export {folder}: found a file, expected a folder or nothing; name another place")
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not found:
        return
    ours = {CONTENTS, *(f"{name}.{form}" for name in current.TABLES for form in get_args(Format))}
    foreign = [name for name in found if name not in ours]
    if CONTENTS not in found or foreign:
        raise FileExistsError(
            f"export {folder}: found {', '.join((foreign or found)[:5])}, expected an empty folder or an earlier "
            "export; name another folder"
        )
    if not replace:
        raise FileExistsError(f"export {folder}: found an earlier export, expected an empty folder; give --replace")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`; an earlier export is moved away first and removed last."""
    old = folder.with_name(f".{folder.name}.replaced")
    if folder.is_dir() and any(folder.iterdir()):
        if old.is_dir():
            shutil.rmtree(old)
        folder.rename(old)
    partial.rename(folder)
    if old.is_dir():
        shutil.rmtree(old)  # or of a replacement that was killed half-way


def _write(table: pa.Table, path: Path, form: str) -> None:
    if form == "parquet":
        pq.write_table(table, path)
        return
    for number, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [None if value is None else json.dumps(value) for value in table.column(number).to_pylist()]
            table = table.set_column(number, field.name, pa.array(texts, pa.string()))
    pv.write_csv(table, path)


def _columns() -> dict[str, Any]:
    return {
        name: {
            field.name: {
                "type": str(field.type),
                **{key.decode(): text.decode() for key, text in (field.metadata or {}).items()},
            }
            for field in current_schema(name)
        }
        for name in current.TABLES
    }
