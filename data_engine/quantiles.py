"""Quantiles of measured columns over all parts, to set a policy's thresholds by: "drop the worst tenth".

Values are counted in bins whose edges are the floats with 11 bits of mantissa (2,048 bins per octave), so no range has
to be declared, counts add up in any order, and how many rows lie below an edge is exact. Thresholds are edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from data_engine.core.errors import ConfigError
from data_engine.core.schema import parse_type
from data_engine.io.columns import Ints, read_columns, table_schema
from data_engine.io.matching import Filters, checked_filters, matches
from data_engine.io.outputs import require_parts
from data_engine.io.storage import Storage
from data_engine.runners.protocol import Runner
from data_engine.stages.rules.policy import DERIVED

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_DROPPED_BITS = np.int64(52 - 11)
_MAGNITUDE = np.int64((1 << 63) - 1)


def bins_of(values: npt.NDArray[np.float64]) -> Ints:
    """Returns the bin of each finite value, in order of value; int64 [rows]."""
    magnitude = values.view(np.int64) & _MAGNITUDE
    below, above = magnitude >> _DROPPED_BITS, -(-magnitude >> _DROPPED_BITS)
    return np.where(values < 0, -above, below)


def lower_edge(number: int) -> float:
    """Returns the least value of a bin."""
    magnitude = np.array([abs(number)], np.int64) << _DROPPED_BITS
    return float(np.copysign(magnitude.view(np.float64)[0], number)) if number else 0.0


@dataclass(frozen=True, slots=True)
class CountBins:
    """Summary: how often each bin of some columns occurs; nulls and values that are no number are counted apart.

    Attributes:
        table: Table.
        columns: Numeric columns, or `seconds`.
        where: Column -> values that a row must have.
    """

    table: str
    columns: tuple[str, ...]
    where: Filters

    def count(self, storage: Storage, part: str) -> dict[str, Any]:
        """Returns column -> {missing, bins: [[bin, rows]]} of a part."""
        read = [name for column in self.columns for name in DERIVED.get(column, (column,))]
        rows = read_columns(storage, part, self.table, [*read, *self.where])
        rows = rows.filter(pa.array(matches(rows, self.where)))
        return {column: _binned(_numbers(rows, column)) for column in self.columns}

    def join(self, counted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns column -> {missing, bins: [[bin, rows]]}, by bin."""
        found: dict[str, Any] = {}
        for column in self.columns:
            bins: dict[int, int] = {}
            for number, rows in (entry for part in counted for entry in part[column]["bins"]):
                bins[number] = bins.get(number, 0) + rows
            missing = sum(part[column]["missing"] for part in counted)
            found[column] = {"missing": missing, "bins": [[number, bins[number]] for number in sorted(bins)]}
        return found


def _numbers(rows: pa.Table, column: str) -> npt.NDArray[np.float64]:
    if column in DERIVED:
        samples, rate = (_numbers(rows, name) for name in DERIVED[column])
        return np.asarray(samples / np.where(rate > 0, rate, np.nan), np.float64)
    floats = pc.fill_null(pc.cast(rows.column(column), pa.float64()), float("nan"))
    return np.asarray(floats.to_numpy(), np.float64)


def _binned(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    good = values[np.isfinite(values)]
    numbers, rows = np.unique(bins_of(good), return_counts=True)
    return {"missing": len(values) - len(good), "bins": np.stack([numbers, rows], axis=1).tolist()}


def thresholds(bins: Sequence[Sequence[int]], shares: Sequence[float] = SHARES) -> list[dict[str, Any]]:
    """Returns for each share the greatest edge with at most that share of the rows below it, and how many those are.

    Args:
        bins: [bin, rows], by bin; not empty.
        shares: 0..1.

    Returns:
        {share, value, below} each: `min: value` in a policy drops `below` rows.
    """
    table = np.array(bins, np.int64)
    below = np.cumsum(table[:, 1]) - table[:, 1]
    total = int(table[:, 1].sum())
    places = [int(np.searchsorted(below, share * total + 1e-9, side="right")) - 1 for share in shares]
    return [
        {"share": share, "value": lower_edge(int(table[place, 0])), "below": int(below[place])}
        for share, place in zip(shares, places, strict=True)
    ]


def column_quantiles(
    runner: Runner, storage: Storage, table: str, columns: Sequence[str], where: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns column -> {rows, missing, quantiles} over the committed parts of a table; see `thresholds`.

    Raises:
        ConfigError: There is no such table, or a column is none or not a number.
    """
    parts = [part.name for part in require_parts(storage, table) if part.marker["rows"]]
    schema = table_schema(table)
    kinds = {field.name: parse_type(field.type) for field in schema.fields} | {name: pa.float64() for name in DERIVED}
    numeric = [n for n, kind in kinds.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
    for column in columns:
        if column not in numeric or not set(DERIVED.get(column, ())) <= set(schema.names):
            raise ConfigError(f"table '{table}' has no numeric column '{column}'; it has {', '.join(numeric)}")
    counted = runner.summarise(CountBins(table, tuple(columns), checked_filters(schema, where)), storage, parts)
    return {
        column: {
            "rows": sum(rows for _, rows in found["bins"]),
            "missing": found["missing"],
            "quantiles": thresholds(found["bins"]) if found["bins"] else [],
        }
        for column, found in counted.items()
    }


def print_quantiles(found: Mapping[str, Any]) -> None:
    """Prints quantiles, a column per measure, and the rule that drops the lowest tenth of each."""
    console = Console(soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("rows below")
    for name in found:
        table.add_column(name, justify="right")
    for place, share in enumerate(SHARES):
        values = [column["quantiles"][place]["value"] if column["quantiles"] else None for column in found.values()]
        table.add_row(f"{share:.0%}", *("-" if value is None else f"{value:.6g}" for value in values))
    table.add_row("rows", *(str(column["rows"]) for column in found.values()))
    table.add_row("missing", *(str(column["missing"]) for column in found.values()))
    console.print(table)
    for name, column in found.items():
        for entry in column["quantiles"][2:3]:
            drops = f"drops {entry['below']} of {column['rows']} rows"
            rule = f"{{column: {name}, min: {entry['value']!r}, reason: ...}}"
            console.print(f"lowest {entry['share']:.0%}: {rule}  {drops}", markup=False, highlight=False)
