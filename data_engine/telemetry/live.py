"""The state of a run while it goes on, kept from shard reports, so that nobody has to read all markers again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from data_engine.core.plan import Plan
from data_engine.io.storage import Storage
from data_engine.runners.books import PIPELINES, Book, group_records, read_book
from data_engine.runners.totals import Totals


class LiveRun:
    """Books of a run in memory, in the shape of `run.json` as far as it can be measured.

    Shards that were committed before count from their commit records, which are read once, when their pipeline is
    first heard of; every other shard counts when it is reported.

    Args:
        storage: Output folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._pipelines: dict[str, _Pipeline] = {}

    def planned(self, plan: Plan, committed: int) -> None:
        """Starts the books of a pipeline; the first one brings those of pipelines that ran here before."""
        for name in PIPELINES:
            if name not in self._pipelines and name != plan.pipeline:
                self._open(read_book(self.storage, name))
        self._pipelines[plan.pipeline] = _Pipeline(plan.num_shards)
        if committed:
            self._open(read_book(self.storage, plan.pipeline))

    def _open(self, book: Book | None) -> None:
        if book is not None:
            self._pipelines[book.pipeline] = _Pipeline(book.num_shards)
            self._pipelines[book.pipeline].recall(self.storage, book)

    def shard_done(self, plan: Plan, report: Mapping[str, Any]) -> None:
        """Counts a shard."""
        pipeline = self._pipelines[plan.pipeline]
        pipeline.shards["dead" if report["status"] == "dead" else "committed"] += 1
        pipeline.add(report.get("groups", ()))

    def run(self) -> dict[str, Any]:
        """Returns the state as `measurements.measure` reads it."""
        pipelines = self._pipelines.values()
        return {
            "state": "running",
            "pipelines": {name: pipeline.state() for name, pipeline in self._pipelines.items()},
            "tables": {table: [total] for pipeline in pipelines for table, total in pipeline.tables.items()},
        }


class _Pipeline:
    """The books of one pipeline."""

    def __init__(self, num_shards: int) -> None:
        self.shards = {"planned": num_shards, "committed": 0, "dead": 0}
        self.totals = Totals()
        self.tables: dict[str, dict[str, Any]] = {}

    def recall(self, storage: Storage, book: Book) -> None:
        """Counts the shards whose last group is committed; the groups of others are counted with their report."""
        *before, last = book.groups
        finished = {record["shard"] for record in self._counted(group_records(storage, _only(book, last)))}
        self.shards["committed"] = len(finished)
        for group in before:
            self.add(record for record in group_records(storage, _only(book, group)) if record["shard"] in finished)

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Counts commit records."""
        for _ in self._counted(records):
            pass

    def _counted(self, records: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
        for record in records:
            self.totals.add(record)
            for table, part in record["tables"].items():
                if not table.startswith("work/"):
                    total = self.tables.setdefault(table, {"rows": 0, "seconds": 0.0})
                    total["rows"] += part["rows"]
                    total["seconds"] += part["seconds"] or 0.0
            yield record

    def state(self) -> dict[str, Any]:
        """Returns what `runners.books.pipeline_state` would say, as far as it is measured."""
        stages, seconds = self.totals.stages(), self.totals.wall_seconds
        return {"shards": dict(self.shards), "stages": stages, "wall_seconds": seconds}


def _only(book: Book, group: str) -> Book:
    groups = {group: book.groups[group]}
    return Book(book.pipeline, book.signature, groups, book.tables, book.num_shards, book.config)
