"""Item files: the input rows of a pipeline, divided once into shards.

A file holds the rows of up to 1,024 shards, so a million shards are a thousand files. Its record batches hold 64
shards each: compressing them one by one would cost more than listing them, and a worker still reads one batch only.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_engine.core.errors import StorageError
from data_engine.io.storage import Storage

SHARDS_PER_FILE = 1024
SHARDS_PER_BATCH = 64
_ROWS_PER_SHARD = b"rows_per_shard"


def write_items(storage: Storage, folder: str, rows: pa.Table, rows_per_shard: int) -> int:
    """Writes `rows` as item files and returns the number of shards."""
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _ROWS_PER_SHARD: str(rows_per_shard)})
    for number, start in enumerate(range(0, rows.num_rows, SHARDS_PER_FILE * rows_per_shard)):
        content = _file_of(rows.slice(start, SHARDS_PER_FILE * rows_per_shard), SHARDS_PER_BATCH * rows_per_shard)
        storage.write(f"{folder}/{number:05d}.arrow", content)
    num_shards: int = -(-rows.num_rows // rows_per_shard)
    return num_shards


def _file_of(rows: pa.Table, rows_per_batch: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for start in range(0, rows.num_rows, rows_per_batch):
            writer.write_batch(_one_batch(rows.slice(start, rows_per_batch)))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    return rows.combine_chunks().to_batches()[0]


def read_items(storage: Storage, folder: str) -> pa.Table:
    """Returns the input rows of all shards, as they were divided.

    Raises:
        StorageError: There is no item file, or one is damaged.
    """
    names = [f"{folder}/{name}" for name in storage.list(folder)]
    try:
        tables = []
        for name in names:
            with storage.open_arrow(name) as file, pa.ipc.open_file(file) as reader:
                tables.append(reader.read_all())
        return pa.concat_tables(tables).combine_chunks()
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"the item files in '{folder}' are missing or damaged ({error}); plan the run again"
        ) from error


def read_item_shard(storage: Storage, folder: str, shard: int) -> Iterator[pa.RecordBatch]:
    """Yields the input rows of one shard.

    Raises:
        StorageError: The item file is missing or damaged.
    """
    name = f"{folder}/{shard // SHARDS_PER_FILE:05d}.arrow"
    try:
        with storage.open_arrow(name) as file, pa.ipc.open_file(file) as reader:
            length = int(reader.schema.metadata[_ROWS_PER_SHARD])
            batch = reader.get_batch(shard % SHARDS_PER_FILE // SHARDS_PER_BATCH)
            start = shard % SHARDS_PER_BATCH * length
            # take copies: a slice would carry bits of its neighbours
            yield batch.take(pa.array(range(start, min(start + length, batch.num_rows)), pa.int64()))
    except (FileNotFoundError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise StorageError(f"item file '{name}' is missing or damaged ({error}); plan the run again") from error
