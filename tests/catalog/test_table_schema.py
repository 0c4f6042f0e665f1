"""Every column says what it is; a row that does not fit is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from catalog import schema


@pytest.mark.parametrize("table", list(schema.TABLES))
def test_every_column_has_type_meaning_and_unit(table: str) -> None:
    fields = schema.arrow_schema(table)
    assert fields.names == list(schema.TABLES[table])
    for field in fields:
        assert field.metadata[b"meaning"], field.name
        assert b"unit" in field.metadata
    assert len(schema.describe(table).splitlines()) == len(fields)


def test_description_reads_as_a_line_per_column() -> None:
    lines = schema.describe("labels").splitlines()
    assert "ml: double [ml]: volume" in lines
    assert "model_version: string, may be null: its version" in lines


def test_missing_and_unknown_columns_are_named(case_row: Any) -> None:
    row = case_row("kits", "case_1", colour="red")
    del row["raw_sha256"]
    with pytest.raises(ValueError, match=r"kits/case_1: missing \['raw_sha256'\], unknown \['colour'\]"):
        schema.check_row("cases", row)


def test_a_value_of_another_type_is_refused(case_row: Any) -> None:
    row = case_row("kits", "case_1", shape_x="wide")
    with pytest.raises(ValueError, match="table cases"):
        schema.arrow_rows("cases", [row])


def test_numpy_values_and_tuples_are_taken(case_row: Any) -> None:
    row = case_row("kits", "case_1", shape_x=np.int64(5), hu_mean=np.float32(0.5), spacing_mm=(1.0, np.float64(2), 3))
    filled = {**row, "revision": 1, "schema_version": 1, "committed_at": None}
    table = schema.arrow_rows("cases", [filled])
    assert table["shape_x"].type == pa.int32()
    assert table["spacing_mm"].to_pylist() == [[1.0, 2.0, 3.0]]
