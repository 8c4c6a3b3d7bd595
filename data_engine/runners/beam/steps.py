"""What runs inside Beam's workers: importable, and small when pickled.

Rows stay where they are, except those that a GroupByKey brings together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from data_engine.core.errors import EngineError
from data_engine.core.plan import Plan
from data_engine.io.exchange import read_index, read_shares
from data_engine.io.shards import Part
from data_engine.io.storage import Storage
from data_engine.runners.attempts import MAX_ATTEMPTS, RUN_ENDING, Outcome, Task, classify
from data_engine.runners.beam.guard import GuardPool, encode_share
from data_engine.runners.beam.notes import Notes
from data_engine.runners.beam.options import BeamOptions
from data_engine.runners.protocol import Report, Summary

NAMESPACE = "speech-data-engine"
Work = tuple[int, int, list[bytes] | None]
"""(shard, attempt to begin with, its rows as Arrow streams where Beam has grouped them)."""


class RunStretch(beam.DoFn):  # type: ignore[misc]  # Beam is not typed
    """Runs one stretch of a shard in a guarded child, up to the last attempt. A bad shard never fails a bundle.

    Args:
        plan: What to run.
        stretch: Position among its stretches.
        notes: Where to leave word.
        settings: Heartbeat and tasks at a time.
        tasks: Shards at a time in one process.
        guards: Handle of the guards that all steps of a process share.
    """

    def __init__(
        self, plan: Plan, stretch: int, notes: Notes, settings: BeamOptions, tasks: int, guards: Shared
    ) -> None:
        self.plan, self.stretch, self.notes = plan, stretch, notes
        self.heartbeat, self.tasks, self.guards = settings.heartbeat_seconds, tasks, guards

    def setup(self) -> None:
        """Takes the guards of this process, which keep models from bundle to bundle."""
        size = self.tasks
        self.pool: GuardPool = self.guards.acquire(lambda: GuardPool(size))

    def process(self, work: Work) -> Iterator[Work]:
        """Runs a shard and hands it on when its stretch is committed."""
        shard, attempt, shares = work
        task = Task(shard, self.stretch, attempt)
        while True:
            kind, value = self._attempt(task, shares)
            if kind == "done":
                count_report(value)
                yield shard, attempt, None
                return
            if kind == "end":
                _end(self.notes, (kind, value))
                return
            if task.attempt >= MAX_ATTEMPTS:
                self.notes.died({"shard": shard, "status": "dead", "reason": value, "attempts": task.attempt})
                Metrics.counter(NAMESPACE, "shards.dead").inc()
                return
            task = replace(task, attempt=task.attempt + 1)

    def _attempt(self, task: Task, shares: list[bytes] | None) -> Outcome:
        beats = 0

        def beat() -> None:
            nonlocal beats
            beats += 1
            with suppress(EngineError, OSError):  # a beat that is not heard is followed by the next
                self.notes.started(task, beats)

        with self.pool.lend() as guard:
            self.notes.started(task)
            try:
                return guard.attempt(self.plan, task, shares, beat, self.heartbeat)
            finally:
                with suppress(EngineError, OSError):
                    self.notes.stopped(task)


def count_report(report: Report) -> None:
    """Adds what a task did to Beam's counters: rows, rejects by code, milliseconds of audio, per stage."""
    if report["status"] == "committed":
        for name, value in counts(report).items():
            Metrics.counter(NAMESPACE, name).inc(value)


def counts(report: Report) -> dict[str, int]:
    """Returns the counters of a report; those that are zero are left out."""
    found = {"tasks.committed": 1}
    for stats in (stats for group in report["groups"] for stats in group["stages"]):
        stage = stats["stage"]
        found |= {f"{stage}.{name}": stats[name] for name in ("rows_in", "rows_out", "rejected", "unused")}
        found |= {f"{stage}.rejected.{code}": number for code, number in stats["reject_codes"].items()}
        found |= {f"{stage}.audio_{way}_ms": round(1000 * stats[f"seconds_{way}"]) for way in ("in", "out")}
    return {name: value for name, value in found.items() if value}


def read_parts(table: str, uri: str, storage_options: Mapping[str, Any]) -> list[Part]:
    """Returns the parts of a divided table: read in a worker, so that a long list is no part of the job's graph."""
    return read_index(Storage(uri, storage_options), table)


def read_rows(part: Part, plan: Plan, numbers: Sequence[int], notes: Notes) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Yields (partition, (part, rows)) of the partitions that are still open, empty ones left out.

    Raises:
        EngineError: The part cannot be read; then no partition is whole, so the job has to fail.
    """
    try:
        for number, rows in read_shares(Storage(plan.output, plan.storage_options), part, numbers):
            if rows.num_rows:
                yield number, (part.shard, encode_share(rows))
    except EngineError as error:
        _end(notes, classify(error))
        raise


def grouped_work(grouped: tuple[int, Mapping[str, Iterable[Any]]]) -> Work:
    """Returns what Beam has grouped under a partition as work: its rows in order of their parts."""
    number, found = grouped
    return number, next(iter(found["open"])), [rows for _, rows in sorted(found["rows"], key=lambda pair: pair[0])]


def count_part(indexed: tuple[int, str], summary: Summary, uri: str, notes: Notes) -> tuple[int, Any]:
    """Counts one part; the index keeps the order of the parts.

    Raises:
        EngineError: The part cannot be read.
    """
    index, part = indexed
    try:
        return index, summary.count(Storage(uri), part)
    except EngineError as error:
        _end(notes, classify(error))
        raise


class JoinInOrder(beam.CombineFn):  # type: ignore[misc]
    """Combines what was counted in the order of the parts, so that sums of floats are equal on every engine."""

    def __init__(self, join: Callable[[Sequence[Any]], Any]) -> None:
        self.join = join

    def create_accumulator(self) -> list[tuple[int, Any]]:
        """Returns nothing counted."""
        return []

    def add_input(self, accumulator: list[tuple[int, Any]], counted: tuple[int, Any]) -> list[tuple[int, Any]]:
        """Adds one part."""
        accumulator.append(counted)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[tuple[int, Any]]]) -> list[tuple[int, Any]]:
        """Joins what several workers have collected."""
        return [counted for accumulator in accumulators for counted in accumulator]

    def extract_output(self, accumulator: list[tuple[int, Any]]) -> Any:
        """Returns the whole."""
        return self.join([counted for _, counted in sorted(accumulator, key=lambda pair: pair[0])])


def _end(notes: Notes, outcome: Outcome) -> None:
    """Leaves word that the run cannot go on; where that cannot be written either, the job's failure says it."""
    kind, value = outcome
    if kind == "end":
        try:
            notes.ended(*value)
        except (EngineError, OSError):
            raise RUN_ENDING[value[0]](value[1]) from None
