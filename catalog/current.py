"""The current rows of the tables that people ask for, as Arrow, for whatever reads plain tables: exports, SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pyarrow as pa

from catalog import schema
from catalog.tables import Tables

TABLES = ("cases", "labels", "quarantine", "runs")
"""The tables that people ask for; links between twins are settled in the folds of `cases`."""

BULKY = ("manifest", "sampled_voxels")
"""Columns that are most of a table's bytes and that few questions need."""

INTERNAL = ("fingerprint",)
"""Columns that only the catalog itself reads."""

OF_THE_CASE = ("dataset", "role", "fold", "path")
"""Columns of its case that each label row carries too."""


def current_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of the current rows of a table: its own, for labels `OF_THE_CASE` and `verdict` behind.

    Columns that are `INTERNAL` are left out.
    """
    fields = [field for field in schema.arrow_schema(table) if field.name not in INTERNAL]
    if table == "labels":
        cases = schema.arrow_schema("cases")
        fields += [cases.field(name) for name in OF_THE_CASE]
        about = {"unit": "", "meaning": "of a reviewer: accepted or rejected; null: none"}
        fields.append(pa.field("verdict", schema.TEXT, metadata=about))
    return pa.schema(fields)


def current_rows(tables: Tables, table: str, at_versions: Mapping[str, int], without: Collection[str] = ()) -> pa.Table:
    """Return the current rows of `table` as of `at_versions`, with the columns of `current_schema`.

    Superseded cases, labels on them and retracted labels are left out; the fold is that of the split group. without:
    columns to leave out.
    """
    names = [name for name in current_schema(table).names if name not in without]
    if table == "cases":
        frame = tables.cases(at_versions=at_versions)
    elif table == "labels":
        own = [name for name in names if name not in OF_THE_CASE]
        frame = tables.labels(columns=own, at_versions=at_versions)
    elif table == "quarantine":
        frame = tables.quarantined(at_versions=at_versions)
    else:
        frame = tables.runs(at_versions=at_versions)
    wanted = pa.schema([current_schema(table).field(name) for name in names])
    times = [field.name for field in wanted if field.type == schema.TIME]
    # pyarrow reads times with a zone by a way that pandas has announced to close; without one it does not.
    frame = frame[names].assign(**{name: frame[name].dt.tz_convert(None) for name in times})
    without_zone = pa.schema(
        [field.with_type(pa.timestamp("us")) if field.name in times else field for field in wanted]
    )
    return pa.Table.from_pandas(frame, schema=without_zone, preserve_index=False).cast(wanted)
