"""Rows of the tables as plain values: what JSON, CSV and a terminal can hold."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries of JSON-able values; see `plain_value`."""
    return [{str(name): plain_value(value) for name, value in row.items()} for row in frame.to_dict("records")]


def plain_value(value: Any) -> Any:
    """Return `value` as JSON knows it: arrays as lists, times as ISO 8601, null and NaN as None."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain_value(item) for name, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if isinstance(value, bool | int | str) else str(value)
