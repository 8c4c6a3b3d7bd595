"""The ledger of a group: copies of its commit markers, a thousand to a file, so that nobody reads a million objects.

Markers decide, never the ledger: what it says of a shard counts only while the marker's name is in the listing of the
folder, and a ledger is removed together with the markers of its signature. What the ledger does not know is read from
the markers themselves. Small runs never have one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from data_engine.core.plan import Plan
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage

RECORDS_PER_FILE = 1024
_MARKER = re.compile(r"part-(\d+)\.json")
_SCHEMA = pa.schema([pa.field("shard", pa.int64()), pa.field("record", pa.binary())])

Record = Mapping[str, Any]


def ledger_folder(pipeline: str, group: str, signature: str) -> str:
    """Returns where the ledger of a group lies."""
    return f"work/ledger/{pipeline}.{group}-{signature[:12]}"


class Ledger:
    """Commit records of one group under one signature.

    Args:
        storage: Output folder.
        pipeline: Its name.
        group: Its name.
        signature: Of the group.
    """

    def __init__(self, storage: Storage, pipeline: str, group: str, signature: str) -> None:
        self.storage, self.signature = storage, signature
        self.markers = f"rejects/{pipeline}.{group}"
        self.folder = ledger_folder(pipeline, group, signature)
        self._pending: list[Record] = []

    def add(self, record: Record) -> None:
        """Takes note of a commit; every 1,024 become a file. The rest is read from its markers next time."""
        self._pending.append(record)
        if len(self._pending) >= RECORDS_PER_FILE:
            self._flush()

    def _flush(self) -> None:
        shards = [record["shard"] for record in self._pending]
        lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() for record in self._pending]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_batch(pa.record_batch([pa.array(shards), pa.array(lines, pa.binary())], schema=_SCHEMA))
        content = sink.getvalue().to_pybytes()
        self.storage.write(f"{self.folder}/{hashlib.sha256(content).hexdigest()[:16]}.arrow", content)
        self._pending = []

    def uncommitted(self, num_shards: int) -> list[int]:
        """Returns the shards that are not committed, and takes note of markers that the ledger missed."""
        listed = self._listed()
        known = {shard for batch in self._files(["shard"]) for shard in batch.column(0).to_pylist()}
        open_shards = set(range(num_shards)) - (known & listed)
        for record in self._unknown(open_shards & listed):
            open_shards.discard(record["shard"])
            self.add(record)
        return sorted(open_shards)

    def records(self, num_shards: int) -> Iterator[Record]:
        """Yields the record of every committed shard once, in no order."""
        left = {shard for shard in self._listed() if shard < num_shards}
        for batch in self._files(["shard", "record"]):
            for shard, record in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                if shard in left:
                    left.discard(shard)
                    yield json.loads(record)
        yield from self._unknown(left)

    def _listed(self) -> set[int]:
        return {int(match[1]) for name in self.storage.list(self.markers) if (match := _MARKER.fullmatch(name))}

    def _unknown(self, shards: set[int]) -> Iterator[Record]:
        """Yields the records of markers that carry the signature, read a thousand at a time."""
        wanted = sorted(shards)
        for start in range(0, len(wanted), RECORDS_PER_FILE):
            names = [marker_name(self.markers, shard) for shard in wanted[start : start + RECORDS_PER_FILE]]
            for record in self.storage.read_jsons(names):
                if isinstance(record, dict) and record.get("signature") == self.signature:
                    yield record

    def _files(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        options = pa.ipc.IpcReadOptions(included_fields=[_SCHEMA.names.index(name) for name in columns])
        for name in self.storage.list(self.folder):
            try:
                with self.storage.open_arrow(f"{self.folder}/{name}") as file:
                    batch = pa.ipc.open_file(file, options=options).get_batch(0)
            except (pa.ArrowInvalid, FileNotFoundError):  # damaged or gone: the markers say the same
                continue
            yield batch


def open_ledgers(storage: Storage, plan: Plan) -> dict[str, Ledger]:
    """Returns the ledgers of a plan's groups, by name."""
    return {group.name: Ledger(storage, plan.pipeline, group.name, group.signature) for group in plan.groups}
