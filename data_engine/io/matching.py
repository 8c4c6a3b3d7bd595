"""Which rows have the values asked for: one meaning of a filter for trainers, exports and mixtures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.errors import ConfigError
from data_engine.core.schema import Schema, parse_type

Filters = Mapping[str, tuple[Any, ...]]
"""Column -> allowed values."""


def checked_filters(schema: Schema, filters: Mapping[str, Any]) -> Filters:
    """Returns the allowed values of each filtered column.

    Raises:
        ConfigError: The table has no such column, or the column never holds such a value.
    """
    fields = {field.name: field for field in schema.fields}
    allowed: dict[str, tuple[Any, ...]] = {}
    for name, value in sorted(filters.items()):
        if name not in fields:
            raise ConfigError(f"cannot filter by '{name}': {schema} has the columns {', '.join(fields)}")
        several = isinstance(value, Collection) and not isinstance(value, str | bytes)
        allowed[name] = tuple(value) if several else (value,)
        unknown = [v for v in allowed[name] if fields[name].values and v not in (fields[name].values or ())]
        if unknown:
            raise ConfigError(f"'{name}' is never {unknown}; its values are {', '.join(fields[name].values or ())}")
        _check_type(name, allowed[name], fields[name].type)
    return allowed


def _check_type(name: str, values: tuple[Any, ...], kind: str) -> None:
    try:
        pa.array(values, parse_type(kind))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ConfigError(f"cannot filter by '{name}': it is {kind}, not {list(values)}") from error


def matches(rows: pa.RecordBatch | pa.Table, filters: Filters) -> npt.NDArray[np.bool_]:
    """Returns which rows have an allowed value in every filtered column, [rows]."""
    keep = np.ones(rows.num_rows, bool)
    for name, values in filters.items():
        column = rows.column(name)
        found = pc.is_in(column, value_set=pa.array(values, column.type))
        keep &= np.asarray(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy())
    return keep
