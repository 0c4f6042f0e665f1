"""The schema version a table was brought to: newer ones are refused, older ones get the columns they lack."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable, Schema

from catalog import schema

PROPERTY = "ctfactory.schemaVersion"
"""Where a table keeps its schema version, among its Delta properties; absent in tables of version 1 and 2."""


def stored_version(table: DeltaTable) -> int:
    """Return the schema version of a table; 2 where it is not written down, which was so up to then."""
    return int(table.metadata().configuration.get(PROPERTY, 2))


def refuse_newer(table: DeltaTable) -> None:
    """Raise ValueError for a table that newer code has changed: this code would misread it, or write what it lacks."""
    found = stored_version(table)
    if found > schema.SCHEMA_VERSION:
        raise ValueError(
            f"table {table.table_uri}: found schema version {found}, expected at most {schema.SCHEMA_VERSION}, the "
            "newest this program knows; update ct-label-factory, or name another lake"
        )


def bring_forward(table: DeltaTable, columns: pa.Schema) -> list[str]:
    """Give a table of an older schema version the columns it lacks; return their names.

    No row and no file changes: the new columns read as null in older rows, and earlier versions stay as they were.
    CommitFailedError when another writer came first; nothing is half done then, or the next call completes it.
    """
    there = {field.name for field in table.schema().fields}
    # Also what every new row must have is optional in the log, for older rows lack it.
    lacking = [field.with_nullable(True) for field in columns if field.name not in there]
    if lacking:
        table.alter.add_columns(Schema.from_arrow(pa.schema(lacking)).fields)
    if stored_version(table) < schema.SCHEMA_VERSION:
        table.alter.set_table_properties({PROPERTY: str(schema.SCHEMA_VERSION)}, raise_if_not_exists=False)
    return [field.name for field in lacking]
