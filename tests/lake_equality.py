"""Are two lakes the same, bit for bit, whenever and in however many attempts each was made?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from catalog import schema
from catalog.manifest import file_sha256

OF_THE_RUN = ("committed_at", "flow_run_id", "mlflow_run_id", "run_id", "started", "ended")
"""Columns that say when and by which run a row was written: all that two equal lakes may differ in."""


def lake_files(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `volumes/`, hidden ones too, by path; folders without a file as ""."""
    found = {}
    for path in sorted((root / "volumes").rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file():
            found[name] = file_sha256(path)
        elif not any(path.iterdir()):
            found[name] = ""
    return found


def table_rows(root: Path, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table as they were written, superseded ones too, without `OF_THE_RUN`, in one order."""
    folder = root / "tables" / table
    if not DeltaTable.is_deltatable(str(folder)):
        return []
    rows = DeltaTable(folder).to_pyarrow_table().to_pylist()
    plain = [{name: value for name, value in row.items() if name not in OF_THE_RUN} for row in rows]
    return sorted(plain, key=repr)


def differences(one: Path, other: Path) -> list[str]:
    """Return one sentence for each file and each row that only one of two lakes has, or that differs; [] when equal.

    one, other: the folders of two local lakes.
    """
    found = []
    files, others = lake_files(one), lake_files(other)
    for name in sorted(files.keys() | others.keys()):
        if files.get(name) != others.get(name):
            found.append(f"{name}: SHA-256 {files.get(name, 'no file')} and {others.get(name, 'no file')}")
    for table in schema.TABLES:
        rows, theirs = table_rows(one, table), table_rows(other, table)
        if len(rows) != len(theirs):
            found.append(f"{table}: {len(rows)} and {len(theirs)} rows")
        for row, its in zip(rows, theirs, strict=False):
            for name in row.keys() | its.keys():
                if row.get(name) != its.get(name):
                    values = f"{str(row.get(name))[:100]} and {str(its.get(name))[:100]}"
                    found.append(f"{table}, {next(iter(row.values()))}: {name} is {values}")
    return found
