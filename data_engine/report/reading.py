"""Reads some columns of the committed parts: the report never loads audio but for the samples it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.core.errors import StorageError, TransientStorageError
from data_engine.io.columns import open_columns, table_schema
from data_engine.io.storage import Storage

ROWS_PER_CHUNK = 32768
PLACE = ("place_part", "place_batch", "place_row")
"""Columns that `Reader.chunks` adds: where a row stands."""
_UNREADABLE = (OSError, StorageError, TransientStorageError, pa.ArrowException)


@dataclass(slots=True)
class Reader:
    """The parts that `run.json` names, column by column.

    Attributes:
        storage: Output folder.
        run: Content of `run.json`.
        problems: A sentence for each part that could not be read; the report shows them.
    """

    storage: Storage
    run: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)

    def parts(self, table: str) -> list[str]:
        """Returns the files of a table, in the order of `run.json`."""
        if table == "rejects":
            return list(self.run.get("rejects", []))
        return [part["file"] for part in self.run.get("tables", {}).get(table, [])]

    def rows(self, table: str) -> int:
        """Returns the rows of a table as `run.json` counts them."""
        return sum(part["rows"] for part in self.run.get("tables", {}).get(table, []))

    def chunks(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yields `columns` and `PLACE` of a table in chunks of about `ROWS_PER_CHUNK` rows.

        A part that is missing or damaged is skipped and noted in `problems`. Nullable columns that older parts do not
        have are null.
        """
        pending: list[pa.Table] = []
        waiting = 0
        for number, name in enumerate(self.parts(table)):
            part = self._narrow(table, name, number, columns)
            if part is not None:
                pending.append(part)
                waiting += part.num_rows
            if waiting >= ROWS_PER_CHUNK:
                yield pa.concat_tables(pending).combine_chunks()
                pending, waiting = [], 0
        if pending:
            yield pa.concat_tables(pending).combine_chunks()

    def row(self, table: str, place: Sequence[int], columns: Sequence[str]) -> dict[str, Any] | None:
        """Returns one row, audio included when asked for; None when its part cannot be read.

        Args:
            table: Table.
            place: Values of `PLACE`.
            columns: Columns to return.
        """
        number, batch, row = place
        name = self.parts(table)[number]
        try:
            with open_columns(self.storage, name, table, columns) as reader:
                found = reader.get_batch(batch).slice(row, 1).to_pylist()[0]
        except (*_UNREADABLE, IndexError) as error:
            self._note(name, error)
            return None
        return {column: found.get(column) for column in columns}

    def _narrow(self, table: str, name: str, number: int, columns: Sequence[str]) -> pa.Table | None:
        fields = {f.name: f.arrow() for f in table_schema(table).fields}
        arrow = pa.schema([fields[column].with_nullable(True) for column in columns])
        try:
            with open_columns(self.storage, name, table, columns) as reader:
                rows = [_conformed(reader.get_batch(i), arrow) for i in range(reader.num_record_batches)]
        except (*_UNREADABLE, TypeError) as error:
            self._note(name, error)
            return None
        return _with_places(pa.Table.from_batches(rows, arrow), [batch.num_rows for batch in rows], number)

    def _note(self, name: str, error: Exception) -> None:
        sentence = f"{name} cannot be read ({type(error).__name__}): its rows are missing from this page"
        if sentence not in self.problems:
            self.problems.append(sentence)


def _conformed(batch: pa.RecordBatch, arrow: pa.Schema) -> pa.RecordBatch:
    names = batch.schema.names
    arrays = [batch.column(names.index(f.name)) if f.name in names else pa.nulls(batch.num_rows, f.type) for f in arrow]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _with_places(rows: pa.Table, lengths: Sequence[int], number: int) -> pa.Table:
    batch = np.repeat(np.arange(len(lengths)), lengths)
    first = np.repeat(np.cumsum([0, *lengths[:-1]]) if lengths else np.zeros(0), lengths)
    places = (np.full(rows.num_rows, number), batch, np.arange(rows.num_rows) - first)
    for name, values in zip(PLACE, places, strict=True):
        rows = rows.append_column(name, pa.array(values.astype(np.int64)))
    return rows
