"""The Dask runner: one task per stretch of a shard on `distributed`; results are small reports.

A worker that dies loses nothing that is committed; a shard that kills every worker it meets becomes a dead shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from data_engine.core.config import validate
from data_engine.core.errors import ClusterError
from data_engine.core.plan import Plan
from data_engine.io.storage import Storage
from data_engine.runners.attempts import RUN_ENDING, Task, settle
from data_engine.runners.dask.cluster import Cluster
from data_engine.runners.dask.flight import Flight, Job, Landed
from data_engine.runners.dask.options import DaskOptions
from data_engine.runners.dask.worker import count_parts, run_task
from data_engine.runners.fingerprint import fingerprint
from data_engine.runners.protocol import Report, Summary


class DaskRunner:
    """Runs plans on a Dask cluster.

    Args:
        workers: Processes of the local cluster; a cluster with an address has its own.
        options: See `DaskOptions`.

    Raises:
        ConfigError: An option is unknown.
    """

    def __init__(self, workers: int, options: Mapping[str, Any]) -> None:
        self.workers = workers
        self.settings = validate(DaskOptions, options, "runner.options")
        self._cluster: Cluster | None = None

    def __enter__(self) -> DaskRunner:
        """Connects with the first plan."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the cluster; a local one ends."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    @property
    def cluster(self) -> Cluster:
        """The connection, made when first asked for."""
        if self._cluster is None:
            self._cluster = Cluster(self.settings, self.workers)
        return self._cluster

    def run(self, plan: Plan, shards: Sequence[int]) -> Iterator[Report]:
        """Runs the shards of a plan and yields a report for each, in order of completion.

        Raises:
            ConfigError, ContractError, StorageError: The run cannot go on, whatever the shard.
            ClusterError: The cluster is lost or takes no work.
        """
        prints = None if self.settings.is_local else [fingerprint(plan, stretch) for stretch in plan.stretches]
        with Flight(self.cluster) as flight:
            for shard in shards:
                flight.add(_job(plan, Task(shard), prints))
            for landed in flight.landed():
                settled = _settled(plan, landed)
                if isinstance(settled, Task):
                    flight.add(_job(plan, settled, prints), first=settled.attempt == 1)
                else:
                    yield settled

    def summarise(self, summary: Summary, storage: Storage, parts: Sequence[str]) -> Any:
        """Counts in the workers, as many parts per task as make tasks of some length.

        Raises:
            ClusterError: The cluster is lost, or counting failed on it.
        """
        if not parts:
            return summary.join([])
        size = max(1, min(64, -(-len(parts) // (4 * max(1, len(self.cluster.members))))))
        counted: dict[int, list[Any]] = {}
        with Flight(self.cluster) as flight:
            for start in range(0, len(parts), size):
                arguments = (summary, storage.uri, parts[start : start + size])
                flight.add(Job(start, count_parts, arguments, 0.0, f"summarise-{start:07d}"))
            for landed in flight.landed():
                counted[landed.item] = _counted(landed)
        return summary.join([count for start in sorted(counted) for count in counted[start]])


def _job(plan: Plan, task: Task, prints: Sequence[Mapping[str, str]] | None) -> Job:
    arguments = (plan, task, prints[task.stretch] if prints else None)
    name = f"{plan.pipeline}-{task.shard:05d}.{task.stretch}.{task.attempt}"
    return Job(task, run_task, arguments, plan.stretches[task.stretch].gpus, name)


def _settled(plan: Plan, landed: Landed) -> Report | Task:
    task: Task = landed.item
    if not landed.deaths:
        return settle(plan, task, landed.outcome)
    # the scheduler has tried it on several workers already
    report = settle(plan, task, landed.outcome, last_attempt=task.attempt)
    assert not isinstance(report, Task)
    return {**report, "attempts": task.attempt - 1 + landed.deaths}


def _counted(landed: Landed) -> list[Any]:
    kind, value = landed.outcome
    if kind == "end":
        name, message = value
        raise RUN_ENDING[name](message)
    if kind == "failed":
        raise ClusterError(f"a summary failed on the cluster: {value}")
    return list(value)
