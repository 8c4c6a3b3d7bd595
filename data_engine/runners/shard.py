"""Runs one shard of a plan: read, fused stages, write, commit, inside one call. All engines call this.

The result is a small report; rows never leave the task. A shard that is committed already is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine import __version__
from data_engine.backends.catalog import BackendCache
from data_engine.core.harness import StageRun
from data_engine.core.plan import Group, Plan, Stretch
from data_engine.core.schema import load_schema
from data_engine.core.stage import Worker
from data_engine.io.exchange import PartitionWriter, read_partition
from data_engine.io.items import read_item_shard
from data_engine.io.shards import TABLE_SCHEMAS, Part, PartWriter, marker_name, read_batches
from data_engine.io.storage import Storage
from data_engine.runners.books import require_claimed
from data_engine.runners.revoked import count_replays
from data_engine.stages.catalog import build_stage


def run_shard(
    plan: Plan,
    shard: int,
    attempt: int,
    backends: BackendCache,
    stretch: Stretch | None = None,
    rows: Iterator[pa.RecordBatch] | None = None,
) -> dict[str, Any]:
    """Runs groups of `plan` on one shard, as far as they are not committed yet.

    Args:
        plan: What to run.
        shard: Number of the shard.
        attempt: Attempt, from 1; stamped into the commit records.
        backends: Opened models of this process.
        stretch: Groups to run; none: all.
        rows: What the first group reads, where the engine has brought it; none: read from storage.

    Returns:
        Report with JSON types: shard, status (committed or skipped), groups (their markers).
    """
    storage = Storage(plan.output, plan.storage_options)
    markers, ran = [], False
    for position, group in enumerate(plan.groups):
        if stretch and not stretch.first <= position < stretch.stop:
            continue
        marker = group_marker(storage, plan, group, shard)
        if marker is None:
            given = rows if rows is not None and position == 0 else read_input(storage, plan, position, shard)
            marker = _run_group(storage, plan, position, shard, attempt, backends, given)
            ran = True
        markers.append(marker)
    return {"shard": shard, "status": "committed" if ran else "skipped", "groups": markers}


def group_table(plan: Plan, group: Group) -> str:
    """Returns the folder of a group's rejects, whose marker is the commit record of the group."""
    return f"rejects/{plan.pipeline}.{group.name}"


def work_table(plan: Plan, group: Group) -> str:
    """Returns the folder of the rows a group hands to the next one."""
    return f"work/{plan.pipeline}.{group.name}-{group.signature[:12]}"


def group_marker(storage: Storage, plan: Plan, group: Group, shard: int) -> dict[str, Any] | None:
    """Returns the commit record of a group's shard if it belongs to this very plan."""
    marker = storage.read_json(marker_name(group_table(plan, group), shard))
    committed = isinstance(marker, dict) and marker.get("signature") == group.signature
    return marker if committed else None


def _run_group(
    storage: Storage,
    plan: Plan,
    position: int,
    shard: int,
    attempt: int,
    backends: BackendCache,
    rows: Iterator[pa.RecordBatch],
) -> dict[str, Any]:
    with storage.scratch() as scratch:
        task = _GroupTask(storage, plan, position, shard, scratch)
        started = time.perf_counter()
        try:
            task.run(Worker(scratch, backends, plan.seed), rows)
            return task.commit(time.perf_counter() - started, attempt)
        finally:
            task.close()


class _GroupTask:
    """The stages, writers and books of one group on one shard."""

    def __init__(self, storage: Storage, plan: Plan, position: int, shard: int, scratch: Path) -> None:
        self.storage, self.plan, self.shard, self.scratch = storage, plan, shard, scratch
        self.group = plan.groups[position]
        self.replays = count_replays(storage, plan.pipeline, self.group, shard)
        self.stages = [build_stage(step.stage, step.config) for step in self.group.steps]
        self.writers: dict[str, PartWriter | PartitionWriter] = {}
        self.runs: list[StageRun] = []

    def run(self, worker: Worker, rows: Iterator[pa.RecordBatch]) -> None:
        """Pulls all rows through the stages; writers see them on their way.

        Rejects carry the number of replays, not of attempts: a worker that was killed must not change a byte.
        """
        for step, stage in zip(self.group.steps, self.stages, strict=True):
            stage.open(worker)
            self.runs.append(StageRun(stage, step.signature, 1 + self.replays))
            rows = self.runs[-1].run(rows)
            if step.table:
                writer = PartWriter(load_schema(TABLE_SCHEMAS[step.table]), self.scratch)
                rows = self._tee(rows, step.table, writer, step.withheld)
        if self.group.keep:
            schema, partition = load_schema(self.stages[-1].spec.produces.name), self.group.partition
            kept = PartitionWriter(schema, self.scratch, partition) if partition else PartWriter(schema, self.scratch)
            rows = self._tee(rows, work_table(self.plan, self.group), kept)
        for _ in rows:
            pass

    def _tee(
        self,
        rows: Iterator[pa.RecordBatch],
        table: str,
        writer: PartWriter | PartitionWriter,
        withheld: tuple[str, ...] = (),
    ) -> Iterator[pa.RecordBatch]:
        self.writers[table] = writer

        def written() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                writer.write(_without(batch, withheld))
                yield batch

        return written()

    def commit(self, wall_seconds: float, attempt: int) -> dict[str, Any]:
        """Publishes data files, then table markers, then the group's own marker."""
        require_claimed(self.storage, self.plan)
        group = self.group
        facts = {"signature": group.signature, "pipeline": self.plan.pipeline, "group": group.name}
        markers = [w.commit(self.storage, table, self.shard, facts) for table, w in self.writers.items()]
        rejects = PartWriter(load_schema("reject"), self.scratch)
        rejects.write(load_schema("reject").batch([row for run in self.runs for row in run.rejects]))
        record = rejects.commit(self.storage, group_table(self.plan, group), self.shard, facts)
        record |= {
            "tables": {m["table"]: {k: m[k] for k in ("file", "rows", "seconds", "sha256")} for m in markers},
            "stages": [run.stats.as_dict() for run in self.runs],
            "wall_seconds": round(wall_seconds, 3),
            "attempt": attempt,
            "replays": self.replays,
            "engine": __version__,
        }
        for marker in [*markers, record]:
            self.storage.write_json(marker_name(marker["table"], self.shard), marker)
        return record

    def close(self) -> None:
        """Closes the stages; back ends stay open for the next shard."""
        for stage in self.stages:
            stage.close()


def read_input(storage: Storage, plan: Plan, position: int, shard: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows a group starts from: items, rows of another pipeline, or the group before."""
    if position == 0 and plan.exchange:
        return read_partition(storage, plan.input, shard, plan.exchange)
    if position == 0 and plan.input.startswith("work/items/"):
        return read_item_shard(storage, plan.input, shard)
    table = plan.input if position == 0 else work_table(plan, plan.groups[position - 1])
    marker = storage.read_json(marker_name(table, shard))
    return read_batches(storage, Part(table, shard, marker or {"file": "(no marker)", "schema": ""}))


def _without(batch: pa.RecordBatch, columns: tuple[str, ...]) -> pa.RecordBatch:
    """Returns the rows with null in some columns."""
    for name in columns:
        index = batch.schema.get_field_index(name)
        batch = batch.set_column(index, batch.schema.field(index), pa.nulls(batch.num_rows, batch.column(index).type))
    return batch
