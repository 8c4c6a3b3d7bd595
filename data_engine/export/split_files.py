"""Parquet files as Hugging Face `datasets` finds them: `<folder>/<split>-00000-of-00002.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.core.schema import Schema
from data_engine.io.storage import Storage

MAX_BYTES = 256 << 20
SPLITS = ("train", "validation", "test")


@contextmanager
def scratch(target: Storage) -> Iterator[Path]:
    """Yields a local folder for files in the making and leaves no trace of it in the target."""
    try:
        with target.scratch() as folder:
            yield folder
    finally:
        target.remove("work")


class SplitFiles:
    """Writes rows of one set into files per split, a new file whenever one is full; bytes depend on the rows only.

    Args:
        target: Export folder.
        folder: Folder of the set inside it.
        local: Folder for files in the making.
        max_bytes: Arrow bytes of rows after which a file is full.
    """

    def __init__(self, target: Storage, folder: str, local: Path, max_bytes: int = MAX_BYTES) -> None:
        self.target, self.folder, self.local, self.max_bytes = target, folder, local, max_bytes
        self.rows: dict[str, int] = {}
        self._done: dict[str, list[Path]] = {}
        self._open: dict[str, tuple[pq.ParquetWriter, int]] = {}

    def write(self, split: str, batch: pa.RecordBatch) -> None:
        """Adds rows to a split."""
        if not batch.num_rows:
            return
        writer, size = self._open.get(split) or (self._new_file(split, batch.schema), 0)
        writer.write_batch(batch, row_group_size=batch.num_rows)
        self.rows[split] = self.rows.get(split, 0) + batch.num_rows
        self._open[split] = (writer, size + batch.nbytes)
        if size + batch.nbytes >= self.max_bytes:
            self._open.pop(split)[0].close()

    def _new_file(self, split: str, schema: pa.Schema) -> pq.ParquetWriter:
        files = self._done.setdefault(split, [])
        files.append(self.local / f"{self.folder.replace('/', '.')}.{split}.{len(files)}")
        return pq.ParquetWriter(files[-1], schema, compression="zstd")

    def close(self) -> list[str]:
        """Publishes the files under their final names and returns these."""
        for writer, _ in self._open.values():
            writer.close()
        names = []
        for split, files in sorted(self._done.items(), key=lambda item: SPLITS.index(item[0])):
            for number, file in enumerate(files):
                names.append(f"{self.folder}/{split}-{number:05d}-of-{len(files):05d}.parquet")
                self.target.put(file, names[-1])
        return names


def by_split(batch: pa.RecordBatch, split: str | None) -> Iterable[tuple[str, pa.RecordBatch]]:
    """Yields the rows of each split, of `split` alone when given; rows of tables without splits are all "train"."""
    if "split" not in batch.schema.names:
        if split in (None, "train"):
            yield "train", batch
        return
    for name in SPLITS if split is None else (split,):
        yield name, batch.filter(pa.compute.equal(batch.column("split"), name))


def with_features(batch: pa.RecordBatch, schema: Schema, extra: tuple[str, ...] = ()) -> pa.RecordBatch:
    """Returns the batch with the Hugging Face features of its columns in the metadata and every column nullable.

    `datasets` believes a feature in the metadata only where the column's field equals its own, and its are nullable.

    Args:
        batch: Columns of `schema`, and string columns named in `extra`.
        schema: Where the features come from.
        extra: String columns of the export.
    """
    known = json.loads(schema.arrow().metadata[b"huggingface"])["info"]["features"]
    known |= {name: {"dtype": "string", "_type": "Value"} for name in extra}
    features: dict[str, Any] = {name: known[name] for name in batch.schema.names}
    metadata = {"schema": str(schema), "huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)}
    fields = [field.with_nullable(True) for field in batch.schema]
    return pa.RecordBatch.from_arrays(batch.columns, schema=pa.schema(fields, metadata))
