"""SQL over the current rows of the four tables. DuckDB is an extra (`sql`); it sees copies and can write nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from catalog import current
from catalog.current import BULKY, current_rows
from catalog.plain import plain_value
from catalog.tables import Tables

if TYPE_CHECKING:
    import duckdb

LOCKED = (
    "SET TimeZone = 'UTC'",
    "SET enable_external_access = false",  # no file, no network, no extension, no Python variable
    "SET lock_configuration = true",
)
"""What makes a connection read-only, in this order: nothing can be set after the last."""


def query(tables: Tables, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return column names and rows (plain values) of one SELECT over `cases`, `labels`, `quarantine` and `runs`.

    Each table shows its current rows, all of one moment; labels carry dataset, role, fold and path of their case.
    The columns `manifest` and `sampled_voxels` are there only where `text` names them: they are most of the bytes.
    RuntimeError without duckdb; ValueError for what is not one reading statement, or with duckdb's own message.
    """
    database = _duckdb()
    settings = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    with database.connect(":memory:", config=settings) as connection:
        for statement in LOCKED:
            connection.execute(statement)
        try:
            _refuse_writing(database, connection, text)
            _show_tables(tables, connection, text)
            result = connection.sql(text).to_arrow_table()
        except database.Error as error:
            raise ValueError(f"query: {_first_lines(error)}; tables: {', '.join(current.TABLES)}") from error
    columns = [[plain_value(value) for value in column.to_pylist()] for column in result.columns]
    return list(result.column_names), list(zip(*columns, strict=True))


def _duckdb() -> Any:
    try:
        import duckdb  # late: an optional package
    except ImportError as error:
        raise RuntimeError(
            "catalog query: duckdb is not installed; type: pip install 'ct-label-factory[sql]'"
        ) from error
    return duckdb


def _refuse_writing(database: Any, connection: duckdb.DuckDBPyConnection, text: str) -> None:
    kinds = [statement.type for statement in connection.extract_statements(text)]
    reading = (database.StatementType.SELECT, database.StatementType.EXPLAIN)
    if len(kinds) != 1 or kinds[0] not in reading:
        found = ", ".join(kind.name for kind in kinds) or "nothing"
        raise ValueError(
            f"query: found {found}, expected one SELECT; the tables are only read here "
            "(`ctfactory catalog export` writes files to work on)"
        )


def _show_tables(tables: Tables, connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Register the tables that `text` names; all of them where it names none, as SHOW TABLES does not."""
    words = {word.lower() for word in re.findall(r"\w+", text)}
    seen = tables.versions()
    without = [name for name in BULKY if name not in words]
    for name in words & set(current.TABLES) or current.TABLES:
        connection.register(name, current_rows(tables, name, seen, without))


def _first_lines(error: Exception) -> str:
    """Return the message in one line, without the drawing of the place in the query."""
    return " ".join(str(error).partition("\nLINE ")[0].split())
