"""Report totals: rows and audio of each table by what its rows say, a summary that every runner executes.

All sums are whole rows and milliseconds, so they are equal however rows are divided and whoever counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.errors import StorageError
from data_engine.io.columns import Ints, length_columns, milliseconds, read_columns, table_schema
from data_engine.io.storage import Storage
from data_engine.report.counting import Tallies, Tally, groups, listed

TOTALS = "report/totals.json"
DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "recordings": ("language", "split"),
    "segments": ("language", "split", "decision", "reasons"),
    "voices": ("language",),
    "candidates": ("language", "split", "decision", "reasons", "selected", "emotion", "speed", "dialect"),
    "aqaa": ("type", "axis", "split", "language", "emotion", "speed", "dialect"),
    "preferences": ("kind: axis", "split", "language"),
}
"""Table -> columns that rows are counted by; `a: b` counts by both together."""
_SPEAKER = "speaker_id"


@dataclass(frozen=True, slots=True)
class Totals:
    """Summary: rows, milliseconds of audio and speakers of each table, whole and by column and value."""

    def count(self, storage: Storage, part: str) -> dict[str, Any]:
        """Returns the totals of a part of any table in DIMENSIONS; of one that cannot be read, nothing."""
        table = part.split("/", 1)[0]
        named = [column for dimension in DIMENSIONS[table] for column in dimension.split(": ")]
        if _SPEAKER in table_schema(table).names:
            named.append(_SPEAKER)
        try:
            rows = read_columns(storage, part, table, [*named, *length_columns(table)])
        except StorageError:  # the page names it
            return {}
        audio = milliseconds(rows, table)
        values = {dimension: _counted(rows, dimension, audio) for dimension in DIMENSIONS[table]}
        speakers = sorted(pc.unique(rows.column(_SPEAKER)).to_pylist()) if _SPEAKER in named else []
        whole = {"rows": rows.num_rows, "milliseconds": int(audio.sum())}
        return {"table": table, **whole, "values": values, "speakers": speakers}

    def join(self, counted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns table -> {rows, milliseconds, speakers, by: {column: {value: [rows, milliseconds]}}}."""
        parts: dict[str, list[Mapping[str, Any]]] = {}
        for part in counted:
            if part:
                parts.setdefault(part["table"], []).append(part)
        return {table: _joined(table, parts[table]) for table in DIMENSIONS if table in parts}


def _counted(rows: pa.Table, dimension: str, audio: Ints) -> dict[str, list[int]]:
    columns = [rows.column(name) for name in dimension.split(": ")]
    if pa.types.is_list(columns[0].type):
        masks = listed(columns[0])
    else:
        texts = [pc.cast(column, pa.string()) for column in columns]
        masks = groups(texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, ": "))
    return {value: [int(mask.sum()), int(audio[mask].sum())] for value, mask in masks}


def _joined(table: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by: dict[str, dict[str, list[int]]] = {}
    for dimension in DIMENSIONS[table]:
        rows: Counter[str] = Counter()
        audio: Counter[str] = Counter()
        for value, (count, length) in (item for part in parts for item in part["values"][dimension].items()):
            rows[value] += count
            audio[value] += length
        by[dimension] = {value: [rows[value], audio[value]] for value in sorted(rows)}
    whole = {name: sum(part[name] for part in parts) for name in ("rows", "milliseconds")}
    return {**whole, "speakers": len({speaker for part in parts for speaker in part["speakers"]}), "by": by}


def counted_parts(run: Mapping[str, Any]) -> list[str]:
    """Returns the files that `Totals` counts, as `run.json` names them."""
    tables = run.get("tables", {})
    return [part["file"] for table in DIMENSIONS for part in tables.get(table, []) if part.get("rows", 1)]


def count_totals(storage: Storage, run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the totals of a run, counted in this process."""
    totals = Totals()
    return totals.join([totals.count(storage, part) for part in counted_parts(run)])


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals as the page shows them.

    Attributes:
        totals: What `Totals.join` returns.
    """

    totals: Mapping[str, Any]

    def every(self, table: str) -> Tally:
        """Returns all rows of a table."""
        found = self.totals.get(table, {"rows": 0, "milliseconds": 0})
        return Tally(found["rows"], found["milliseconds"] / 1000)

    def by(self, table: str, column: str) -> Tallies:
        """Returns the rows of a table by the values of a column."""
        found = self.totals.get(table, {"by": {column: {}}})["by"][column]
        return Tallies({value: Tally(rows, audio / 1000) for value, (rows, audio) in found.items()})

    def of(self, table: str, column: str, value: str) -> Tally:
        """Returns the rows of a table with one value."""
        return self.by(table, column).by_key.get(value, Tally())
