"""Exchange: rows divided by a key while they are written, so that all rows with one key can be read in one place.

A part of a divided table has one record batch per partition, empty ones too; partition p of the table is batch p of
every part. Rows travel through storage only. Beam groups the same batches with its own shuffle instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.batching import batch_seconds
from data_engine.core.errors import StorageError
from data_engine.core.plan import Partition
from data_engine.core.schema import Schema, load_schema
from data_engine.core.signature import digest
from data_engine.io.shards import ROWS_PER_BATCH, Part, committed_parts, conform, publish
from data_engine.io.storage import Storage

INDEX = "index.json"


class PartitionWriter:
    """Writes the rows of one shard divided by a key; holds them until they are committed.

    Args:
        schema: Of the rows.
        folder: Where the file grows.
        partition: Key and number of partitions.
    """

    def __init__(self, schema: Schema, folder: Path, partition: Partition) -> None:
        self.schema, self.partition = schema, partition
        self._path = folder / f"{schema}-{id(self):x}.arrow"
        self._rows: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows."""
        self._rows.append(conform(batch, self.schema))

    def commit(self, storage: Storage, table: str, shard: int, facts: dict[str, Any]) -> dict[str, Any]:
        """Publishes the data file and returns its marker, which the caller writes last."""
        rows = pa.Table.from_batches(self._rows, self.schema.arrow()).combine_chunks()
        numbers = partition_of(rows.column(self.partition.key), self.partition.count)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(str(self._path), self.schema.arrow(), options=options) as writer:
            for number in range(self.partition.count):
                writer.write_batch(_one_batch(rows.take(pa.array(np.flatnonzero(numbers == number)))))
        seconds = sum(batch_seconds(batch) for batch in self._rows)
        counts = {"rows": rows.num_rows, "seconds": round(seconds, 3), "schema": str(self.schema)}
        return publish(self._path, storage, table, shard) | counts | facts


def partition_of(keys: Any, count: int) -> npt.NDArray[np.int64]:
    """Returns the partition of each key by its hash, int64 [rows]; the same on every machine.

    Args:
        keys: String column.
        count: Number of partitions.
    """
    encoded = pc.dictionary_encode(keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys)
    hashes = [hashlib.blake2b(str(key).encode(), digest_size=8).digest() for key in encoded.dictionary.to_pylist()]
    numbers = np.array([int.from_bytes(value, "big") % count for value in hashes], np.int64)
    return numbers[encoded.indices.to_numpy(zero_copy_only=False)] if len(numbers) else np.zeros(0, np.int64)


def write_index(storage: Storage, table: str) -> str:
    """Writes the list of a divided table's committed parts beside them and returns a digest of their content."""
    parts = committed_parts(storage, table)
    names = ("file", "sha256", "schema")
    storage.write_json(f"{table}/{INDEX}", [[p.shard, {k: p.marker[k] for k in names}] for p in parts])
    return digest([part.marker["sha256"] for part in parts])


def read_index(storage: Storage, table: str) -> list[Part]:
    """Returns the parts of a divided table, by shard, with one request."""
    return [Part(table, shard, marker) for shard, marker in storage.read_json(f"{table}/{INDEX}") or []]


def read_partition(storage: Storage, table: str, number: int, key: str) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one partition of all parts, in order of key and id."""
    return ordered((read_share(storage, part, number) for part in read_index(storage, table)), key)


def read_share(storage: Storage, part: Part, number: int) -> pa.RecordBatch:
    """Returns the rows of one partition in one part.

    Raises:
        StorageError: The data file is missing or damaged.
    """
    return next(read_shares(storage, part, [number]))[1]


def read_shares(storage: Storage, part: Part, numbers: Iterable[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields (partition, its rows in one part) for some partitions; opens the part once.

    Raises:
        StorageError: The data file is missing or damaged.
    """
    try:
        with storage.open_arrow(part.name) as file, pa.ipc.open_file(file) as reader:
            for number in numbers:
                yield number, reader.get_batch(number)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise StorageError(
            f"part '{part.name}' is missing or damaged ({error}); remove its marker, run again"
        ) from error


def ordered(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.RecordBatch]:
    """Yields rows in order of key and id, in pieces of a fixed size: how they arrived leaves no trace."""
    found = [batch for batch in batches if batch.num_rows]
    if not found:
        return
    rows = pa.Table.from_batches(found)
    identity = load_schema((rows.schema.metadata or {})[b"schema"].decode()).id
    rows = rows.take(pc.sort_indices(rows, [(key, "ascending"), (identity, "ascending")]))
    for start in range(0, rows.num_rows, ROWS_PER_BATCH):
        yield _one_batch(rows.slice(start, ROWS_PER_BATCH))


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=rows.schema)
