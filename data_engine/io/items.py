"""Item files: the input rows of a pipeline, divided once into shards.

Each record batch of an item file is one shard; a file holds up to 1,024 of them, so a million shards are a
thousand files and a worker reads one batch by its number.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_engine.core.errors import StorageError
from data_engine.io.storage import Storage

SHARDS_PER_FILE = 1024


def write_items(storage: Storage, folder: str, rows: pa.Table, rows_per_shard: int) -> int:
    """Writes `rows` as item files and returns the number of shards."""
    num_shards: int = -(-rows.num_rows // rows_per_shard)
    for first in range(0, num_shards, SHARDS_PER_FILE):
        sink = pa.BufferOutputStream()
        last = min(first + SHARDS_PER_FILE, num_shards)
        with pa.ipc.new_file(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            for shard in range(first, last):
                writer.write_batch(_shard_batch(rows, shard * rows_per_shard, rows_per_shard))
        storage.write(f"{folder}/{first // SHARDS_PER_FILE:05d}.arrow", sink.getvalue().to_pybytes())
    return num_shards


def _shard_batch(rows: pa.Table, start: int, length: int) -> pa.RecordBatch:
    table = rows.slice(start, length).combine_chunks()
    return table.to_batches()[0]


def read_item_shard(storage: Storage, folder: str, shard: int) -> Iterator[pa.RecordBatch]:
    """Yields the input rows of one shard."""
    name = f"{folder}/{shard // SHARDS_PER_FILE:05d}.arrow"
    try:
        with storage.open(name) as file, pa.ipc.open_file(file) as reader:
            yield reader.get_batch(shard % SHARDS_PER_FILE)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise StorageError(f"item file '{name}' is missing or damaged ({error}); plan the run again") from error
