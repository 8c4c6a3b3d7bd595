"""Some columns of a committed part, and how much audio its rows hold: what counting needs, without reading audio."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.errors import StorageError
from data_engine.core.schema import Schema, load_schema
from data_engine.io.decisions import DECIDED, TABLE, decided, read_decisions, result_folder
from data_engine.io.shards import ROWS_PER_BATCH, TABLE_SCHEMAS
from data_engine.io.storage import Storage

Ints = npt.NDArray[np.int64]

SAMPLED = ("num_samples", "sample_rate")
CODED = ("vq06_q", "vq06_a")
SEMANTIC_RATE = 25
"""Semantic codes per second (Step-Audio, arXiv 2502.11946)."""


def table_schema(table: str) -> Schema:
    """Returns the schema of a public table."""
    return load_schema(TABLE_SCHEMAS[table])


def read_columns(
    storage: Storage, name: str, table: str, columns: Sequence[str], decisions: str | None = None
) -> pa.Table:
    """Returns some columns of a part, in one chunk; only their bytes are read.

    Args:
        storage: Output folder.
        name: File inside it.
        table: Table it belongs to.
        columns: Columns of the table; nullable ones that an older part does not have are null.
        decisions: Name of a filter result; none: the one in force.

    Raises:
        StorageError: The file is missing, damaged or of another table.
    """
    fields = {field.name: field.arrow() for field in table_schema(table).fields}
    wanted = pa.schema([fields[column] for column in dict.fromkeys(columns)])
    try:
        with open_columns(storage, name, table, wanted.names, decisions) as reader:
            return conformed(reader.read_all(), wanted).combine_chunks()
    except (FileNotFoundError, KeyError, pa.ArrowException) as error:
        raise StorageError(
            f"part '{name}' is committed but cannot be read: {error}. Remove its marker and run again to make it anew."
        ) from error


@contextmanager
def open_columns(
    storage: Storage, name: str, table: str, columns: Sequence[str], decisions: str | None = None
) -> Iterator[Any]:
    """Yields a reader of a part that touches the bytes of `columns` only.

    The file is taken to have the columns of today's schema; one that has not is opened again by its own. Columns that
    a policy decides are those of the filter result `decisions`; of None, the one in force.
    """
    wanted = table == TABLE and bool(set(columns) & set(DECIDED))
    folder = result_folder(storage, decisions) if wanted else None
    with storage.open_arrow(name) as file, column_reader(file, table_schema(table), columns) as reader:
        yield DecidedReader(reader, read_decisions(storage, folder, name)) if folder else reader


class DecidedReader:
    """A reader of a part of segments that has other decisions in the place of the stored ones.

    Args:
        reader: Reader of an Arrow file; record batches have `ROWS_PER_BATCH` rows, the last perhaps fewer.
        decisions: Decisions about all of its rows.
    """

    def __init__(self, reader: Any, decisions: pa.RecordBatch) -> None:
        self._reader, self._decisions = reader, decisions
        self.schema: pa.Schema = reader.schema
        self.num_record_batches: int = reader.num_record_batches

    def get_batch(self, index: int) -> pa.RecordBatch:
        """Returns a record batch."""
        return decided(self._reader.get_batch(index), self._decisions, index * ROWS_PER_BATCH)

    def read_all(self) -> pa.Table:
        """Returns all rows."""
        return decided(self._reader.read_all(), self._decisions)


def column_reader(file: Any, schema: Schema, columns: Collection[str], threads: bool = True) -> Any:
    """Returns a reader of an open Arrow file that touches the bytes of `columns` only.

    Args:
        file: Seekable file.
        schema: Today's schema of its rows.
        columns: Columns to read; those that an older file does not have are absent.
        threads: Whether to decompress with several threads.
    """
    with suppress(pa.ArrowInvalid):  # an older file may have fewer columns than the positions asked for
        reader = pa.ipc.open_file(file, options=_only(schema.names, columns, threads))
        if set(reader.schema.names) == set(columns):
            return reader
    return pa.ipc.open_file(file, options=_only(pa.ipc.open_file(file).schema.names, columns, threads))


def _only(names: Sequence[str], columns: Collection[str], threads: bool) -> pa.ipc.IpcReadOptions:
    included = [position for position, name in enumerate(names) if name in columns]
    return pa.ipc.IpcReadOptions(included_fields=included, use_threads=threads)


def conformed(rows: Any, wanted: pa.Schema) -> Any:
    """Returns the wanted columns of a table or record batch; nullable ones that it does not have are null.

    Raises:
        KeyError: A column that is never null is absent.
    """
    names = rows.schema.names
    absent = [field.name for field in wanted if field.name not in names and not field.nullable]
    if absent:
        raise KeyError(f"it has no column {absent}")
    columns = [rows.column(f.name) if f.name in names else pa.nulls(rows.num_rows, f.type) for f in wanted]
    return type(rows).from_arrays(columns, schema=wanted)


def length_columns(table: str) -> tuple[str, ...]:
    """Returns the columns that tell how much audio a row of a table holds; none when its rows hold none."""
    names = table_schema(table).names
    return next((columns for columns in (SAMPLED, CODED) if set(columns) <= set(names)), ())


def milliseconds(rows: pa.Table, table: str) -> Ints:
    """Returns the audio of each row in whole milliseconds, so that sums are exact in any order; int64 [rows].

    The samples of a clip, rounded to the nearest millisecond; of an example, query and answer: 40 ms per semantic code.
    """
    columns = length_columns(table)
    if columns == SAMPLED:
        samples, rate = (_integers(rows.column(name)) for name in SAMPLED)
        return np.asarray((samples * 1000 + rate // 2) // np.maximum(rate, 1), np.int64)
    found = np.zeros(rows.num_rows, np.int64)
    for name in columns:
        found += _integers(pc.list_value_length(rows.column(name))) * (1000 // SEMANTIC_RATE)
    return found


def _integers(column: Any) -> Ints:
    return np.asarray(pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(), np.int64)
