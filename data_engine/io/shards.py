"""Arrow parts and their commit markers.

A part is an Arrow IPC file (zstd) named `part-<shard>-<hash>.arrow`; its marker `part-<shard>.json` is written
last and atomically. Readers trust markers only, so half-written parts are invisible.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.core.batching import batch_seconds
from data_engine.core.errors import ContractError, StorageError
from data_engine.core.schema import Schema, load_schema
from data_engine.io.decisions import DECIDED, TABLE, decided, folder_in_force, read_decisions
from data_engine.io.storage import Storage

ROWS_PER_BATCH = 64
_MARKER = re.compile(r"part-(\d+)\.json")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One committed part of a table, as its marker tells."""

    table: str
    shard: int
    marker: dict[str, Any]

    @property
    def name(self) -> str:
        """Path inside the output folder."""
        return f"{self.table}/{self.marker['file']}"


class PartWriter:
    """Writes rows of one table of one shard to a local file and commits it.

    Rows are cut into record batches of a fixed size, so the bytes do not depend on how they arrived.
    """

    def __init__(self, schema: Schema, folder: Path) -> None:
        self.schema = schema
        self._arrow = schema.arrow()
        self._path = folder / f"{schema}-{id(self):x}.arrow"
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_file(str(self._path), self._arrow, options=options)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self.rows, self.seconds = 0, 0.0

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; columns the schema does not have are left out, absent nullable ones are null."""
        batch = conform(batch, self.schema)
        self.rows += batch.num_rows
        self.seconds += batch_seconds(batch)
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        if self._pending_rows >= ROWS_PER_BATCH:
            self._flush(whole=False)

    def _flush(self, whole: bool) -> None:
        if not self._pending_rows:
            return
        rows = pa.concat_batches(self._pending)
        stop = rows.num_rows if whole else rows.num_rows - rows.num_rows % ROWS_PER_BATCH
        for start in range(0, stop, ROWS_PER_BATCH):
            # take copies: a slice would carry bits of its neighbours into the file
            self._writer.write_batch(rows.take(pa.array(range(start, min(start + ROWS_PER_BATCH, stop)))))
        rest = rows.slice(stop)
        self._pending, self._pending_rows = [rest], rest.num_rows

    def commit(self, storage: Storage, table: str, shard: int, facts: dict[str, Any]) -> dict[str, Any]:
        """Publishes the data file and returns its marker, which the caller writes last.

        Args:
            storage: Output folder.
            table: Folder of the table inside it.
            shard: Number of the shard.
            facts: What else the marker says.
        """
        self._flush(whole=True)
        self._writer.close()
        counts = {"rows": self.rows, "seconds": round(self.seconds, 3), "schema": str(self.schema)}
        return publish(self._path, storage, table, shard) | counts | facts

    def discard(self) -> None:
        """Closes and removes the file when the shard failed."""
        self._writer.close()
        self._path.unlink(missing_ok=True)


def publish(path: Path, storage: Storage, table: str, shard: int) -> dict[str, Any]:
    """Moves a finished data file to a name that carries its content, and returns what its marker says of it."""
    sha256, size = file_sha256(path), path.stat().st_size
    name = f"part-{shard:05d}-{sha256[:16]}.arrow"
    storage.put(path, f"{table}/{name}")
    return {"table": table, "shard": shard, "file": name, "bytes": size, "sha256": sha256}


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def conform(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """Returns the columns of `schema` in its order, null where the rows do not have them yet."""
    names = batch.schema.names
    columns = [
        batch.column(names.index(f.name)) if f.name in names else pa.nulls(batch.num_rows, f.arrow().type)
        for f in schema.fields
    ]
    fields = pa.schema([f.arrow() for f in schema.fields])
    result = pa.RecordBatch.from_arrays(columns, schema=fields)
    schema.check(result, f"rows for table of {schema}")
    return result.replace_schema_metadata(schema.arrow().metadata)


def marker_name(table: str, shard: int) -> str:
    """Returns the path of a commit marker."""
    return f"{table}/part-{shard:05d}.json"


def committed_parts(storage: Storage, table: str) -> list[Part]:
    """Returns the committed parts of a table, by shard number, with the filter result in force."""
    matches = [match for name in storage.list(table) if (match := _MARKER.fullmatch(name))]
    markers = storage.read_jsons([f"{table}/{match[0]}" for match in matches])
    parts = [
        Part(table, int(match[1]), marker)
        for match, marker in zip(matches, markers, strict=True)
        if isinstance(marker, dict) and "file" in marker
    ]
    return decided_by(sorted(parts, key=lambda part: part.shard), folder_in_force(storage) if table == TABLE else None)


def decided_by(parts: Sequence[Part], folder: str | None) -> list[Part]:
    """Returns parts that are read with the decisions of a filter result, by its folder; None: with their own."""
    markers = [{key: value for key, value in part.marker.items() if key != "decisions"} for part in parts]
    named = {"decisions": folder} if folder else {}
    return [Part(part.table, part.shard, marker | named) for part, marker in zip(parts, markers, strict=True)]


def read_batches(storage: Storage, part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yields the record batches of a part, one in memory at a time.

    Raises:
        StorageError: The data file is missing or damaged, or a filter result in force has no decisions about it.
        TransientStorageError: The store kept failing; nothing is wrong with the part.
        ContractError: It has another schema than its marker says.
    """
    folder = part.marker.get("decisions") if columns is None or set(columns) & set(DECIDED) else None
    decisions, first = read_decisions(storage, folder, part.name) if folder else None, 0
    try:
        with storage.open_arrow(part.name, part.marker.get("bytes")) as file, pa.ipc.open_file(file) as reader:
            metadata = reader.schema.metadata or {}
            found = f"{metadata.get(b'schema', b'?').decode()}.v{metadata.get(b'schema_version', b'?').decode()}"
            if found != part.marker["schema"]:
                raise ContractError(f"'{part.name}' holds {found}, its marker says {part.marker['schema']}")
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                batch = decided(batch, decisions, first) if decisions else batch
                first += batch.num_rows
                yield batch.select(list(columns)) if columns else batch
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT):  # the disk's fault: Arrow's own have no number
            raise
        raise StorageError(
            f"part '{part.name}' is committed but cannot be read: {error}. Remove its marker "
            f"'{marker_name(part.table, part.shard)}' and run again to make it anew."
        ) from error


def read_table(root: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns a whole committed table of an output folder: for small tables such as voices."""
    storage = Storage(root)
    parts = committed_parts(storage, table)
    batches = [batch for part in parts for batch in read_batches(storage, part, columns)]
    if batches:
        return pa.Table.from_batches(batches)
    schema = load_schema(TABLE_SCHEMAS[table]).arrow()
    return schema.empty_table().select(list(columns)) if columns else schema.empty_table()


TABLE_SCHEMAS: dict[str, str] = {
    "recordings": "recording", "duplicates": "duplicate", "segments": "segment", "speakers": "speaker",
    "voices": "voice", "scripts": "script", "candidates": "candidate", "aqaa": "aqaa", "preferences": "preference",
    "rejects": "reject",
}  # fmt: skip
"""Public tables and their schemas."""
