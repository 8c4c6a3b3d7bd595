"""Reads record batches of committed parts: only the columns asked for, one window in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.errors import ContractError, StorageError
from data_engine.core.schema import Schema
from data_engine.io.columns import DecidedReader, column_reader, conformed
from data_engine.io.decisions import DECIDED, read_decisions
from data_engine.io.matching import Filters, matches
from data_engine.io.mixtures import Mixture
from data_engine.io.outputs import require_parts
from data_engine.io.shards import ROWS_PER_BATCH, Part
from data_engine.io.storage import Storage
from data_engine.loader.order import Indices, Piece

Row = dict[str, Any]
TOKENIZER_COLUMNS = ("text_tokenizer_hash", "tokenizer_hash")


@dataclass(frozen=True, slots=True)
class Units:
    """The record batches of all parts, in stored order.

    Attributes:
        sources: (folder number, part) of every part.
        source: Index into `sources`, shape (units,).
        batch: Number of the record batch in its part, shape (units,).
        rows: Its rows, shape (units,).
    """

    sources: tuple[tuple[int, Part], ...]
    source: Indices
    batch: Indices
    rows: Indices


def list_units(outputs: Sequence[Storage], table: str, decisions: str | None = None) -> Units:
    """Returns the record batches of a table of several output folders, from `run.json` or markers alone.

    Args:
        outputs: Output folders.
        table: Table.
        decisions: Name of the filter result that segments are read with; none: the one in force in each folder.

    Raises:
        ConfigError: A folder has no committed part of the table, or no such filter result.
    """
    listed = [(n, p) for n, storage in enumerate(outputs) for p in require_parts(storage, table, decisions)]
    sources = [(n, p) for n, p in listed if p.marker["rows"]]
    part_rows = np.array([part.marker["rows"] for _, part in sources], np.int64)
    counts = -(-part_rows // ROWS_PER_BATCH)
    source = np.repeat(np.arange(len(sources)), counts)
    batch = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Units(tuple(sources), source, batch, np.minimum(ROWS_PER_BATCH, part_rows[source] - batch * ROWS_PER_BATCH))


@dataclass(slots=True)
class UnitReader:
    """Reads pieces of record batches, filters rows and watches over the tokenizers.

    Attributes:
        outputs: Output folders.
        units: Their record batches.
        schema: Schema of the table.
        columns: Columns of the rows.
        filters: Column -> allowed values.
        mixtures: Per folder, the mixture that rows must be in; empty: all rows.
        tokenizers: Tokenizer column -> the one hash seen so far.
    """

    outputs: Sequence[Storage]
    units: Units
    schema: Schema
    columns: tuple[str, ...]
    filters: Filters
    mixtures: Sequence[Mixture] = ()
    tokenizers: dict[str, str] = field(default_factory=dict)
    _wanted: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        names = {*self.columns, *self.filters, *TOKENIZER_COLUMNS, *([self.schema.id] if self.mixtures else [])}
        self._wanted = pa.schema([column.arrow() for column in self.schema.fields if column.name in names])

    @property
    def filter_results(self) -> list[str]:
        """Folders of the filter results that decide columns of the rows, by part; empty: what the runs decided."""
        read = set(self._wanted.names) & set(DECIDED)
        found = [part.marker.get("decisions", "") for _, part in self.units.sources] if read else []
        return found if any(found) else []

    def read(self, pieces: Sequence[Piece]) -> list[tuple[pa.RecordBatch, npt.NDArray[np.bool_]]]:
        """Returns, for each piece, its rows and which of them pass the filters.

        Raises:
            StorageError: A part is missing or damaged.
            ContractError: A part is not what its marker says, or rows of two tokenizers would be mixed.
        """
        by_part = sorted(range(len(pieces)), key=lambda i: (int(self.units.source[pieces[i].unit]), i))
        found: dict[int, tuple[pa.RecordBatch, npt.NDArray[np.bool_]]] = {}
        opened, reader = -1, None
        for index in by_part:
            piece = pieces[index]
            source = int(self.units.source[piece.unit])
            if source != opened:
                opened, reader = source, self._open(source)
            found[index] = self._piece(reader, piece)
        return [found[index] for index in range(len(pieces))]

    def check_folders(self) -> None:
        """Reads the first batch of each folder, so that two tokenizers are told apart before training starts.

        Raises:
            ContractError: Folders were made with different tokenizers.
        """
        folders = np.array([folder for folder, _ in self.units.sources], np.int64)[self.units.source]
        for unit in np.unique(folders, return_index=True)[1]:
            self.read([Piece(int(unit), 0, int(self.units.rows[unit]))])

    def _open(self, source: int) -> Any:
        folder, part = self.units.sources[source]
        storage = self.outputs[folder]
        try:
            file = pa.memory_map(storage.path(part.name)) if storage.is_local else storage.open(part.name)
            reader = column_reader(file, self.schema, self._wanted.names, threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise _unreadable(part, error) from error
        metadata = reader.schema.metadata or {}
        found = f"{metadata.get(b'schema', b'?').decode()}.v{metadata.get(b'schema_version', b'?').decode()}"
        if found != part.marker["schema"]:
            raise ContractError(f"'{part.name}' holds {found}, its marker says {part.marker['schema']}")
        if part.marker.get("decisions") and set(self._wanted.names) & set(DECIDED):
            return DecidedReader(reader, read_decisions(storage, part.marker["decisions"], part.name))
        return reader

    def _piece(self, reader: Any, piece: Piece) -> tuple[pa.RecordBatch, npt.NDArray[np.bool_]]:
        folder, part = self.units.sources[int(self.units.source[piece.unit])]
        number, rows = int(self.units.batch[piece.unit]), int(self.units.rows[piece.unit])
        try:
            batch = conformed(reader.get_batch(number), self._wanted)
        except (OSError, pa.ArrowInvalid, ValueError, KeyError) as error:
            raise _unreadable(part, error) from error
        if batch.num_rows != rows:
            raise ContractError(f"batch {number} of '{part.name}' has {batch.num_rows} rows, not {rows}")
        batch = batch.slice(piece.start, piece.stop - piece.start)
        keep = matches(batch, self.filters)
        if self.mixtures:
            keep &= self.mixtures[folder].contains(batch.column(self.schema.id))
        self._check_tokenizers(batch, keep, part)
        return batch.select(list(self.columns)), keep

    def _check_tokenizers(self, batch: pa.RecordBatch, keep: npt.NDArray[np.bool_], part: Part) -> None:
        for name in TOKENIZER_COLUMNS:
            if name not in batch.schema.names:
                continue
            for found in pc.unique(batch.column(name).filter(pa.array(keep))).to_pylist():
                if found is not None and self.tokenizers.setdefault(name, found) != found:
                    raise ContractError(
                        f"'{part.name}' was made with the {name} {found}, rows before it with {self.tokenizers[name]}. "
                        f"Ids of two tokenizers mean different things: choose one with filters={{'{name}': ...}}, or "
                        "load the folders one by one."
                    )


def row_of(batch: pa.RecordBatch, index: int) -> Row:
    """Returns one row: numbers in lists as writable arrays, everything else as plain Python values."""
    return {name: _value(column[index]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _value(scalar: Any) -> Any:
    if isinstance(scalar, pa.ListScalar) and pa.types.is_primitive(scalar.type.value_type):
        return None if scalar.values is None else np.array(scalar.values.to_numpy(zero_copy_only=False))
    return scalar.as_py()


def _unreadable(part: Part, error: Exception) -> StorageError:
    return StorageError(
        f"part '{part.name}' is committed but cannot be read: {error}. Restore the file, or remove its marker and "
        "run the same command again to make it anew."
    )
