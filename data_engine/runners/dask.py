"""The Dask runner: one task per shard on `distributed`, results that are small reports, nothing kept in workers.

A worker that dies loses nothing that is committed; a shard that kills every worker it meets becomes a dead shard. The
task is a function of an importable module, so that models are loaded once per worker and not once per task.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_engine.backends.catalog import BackendCache
from data_engine.core.config import Settings, validate
from data_engine.core.errors import MissingExtraError
from data_engine.core.plan import Plan
from data_engine.runners.local import MAX_ATTEMPTS, RUN_ENDING, classify
from data_engine.runners.shard import run_shard

if TYPE_CHECKING:
    from distributed import Client, Future


class DaskOptions(Settings):
    """Options of the runner.

    Attributes:
        address: Scheduler address, `tcp://host:port`; none: see `scheduler_file`, else a local cluster.
        scheduler_file: JSON file that a scheduler wrote.
        memory_limit: Memory of each worker of the local cluster, for example 4GiB.
        in_flight: Shards submitted per worker at a time.
        resources: What a shard occupies of a worker, for example {GPU: 1}.
    """

    address: str | None = None
    scheduler_file: str | None = None
    memory_limit: str = "auto"
    in_flight: int = 2
    resources: dict[str, float] = Field(default_factory=dict)


def run_dask(plan: Plan, shards: Sequence[int], workers: int, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Runs the shards of a plan on a Dask cluster and yields a report for each, in order of completion.

    Args:
        plan: What to run.
        shards: Shards that are not committed yet.
        workers: Processes of the local cluster; a cluster with an address has its own.
        options: See `DaskOptions`.

    Yields:
        Reports of `runners.shard.run_shard`, or {shard, status: "dead", reason, attempts}.

    Raises:
        ConfigError, ContractError, StorageError: The run cannot go on, whatever the shard.
    """
    settings = validate(DaskOptions, options, "runner.options")
    with _connect(settings, min(workers, len(shards))) as client:
        print(f"Dask dashboard: {client.dashboard_link}", file=sys.stderr)
        yield from _Submission(client, plan, settings).run(deque((shard, 1) for shard in shards))


def _connect(settings: DaskOptions, workers: int) -> Client:
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingExtraError("distributed", "dask", "runner 'dask'") from error
    if settings.address or settings.scheduler_file:
        return Client(address=settings.address, scheduler_file=settings.scheduler_file)
    # one task at a time per worker: a task that kills its worker must not take the blame of queued ones with it
    dask.config.set({"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 2})
    cluster = LocalCluster(
        n_workers=workers, threads_per_worker=1, memory_limit=settings.memory_limit, dashboard_address=":0"
    )
    return cluster.get_client()


class _Submission:
    """Keeps a bounded number of shards in flight and turns what becomes of them into reports."""

    def __init__(self, client: Client, plan: Plan, settings: DaskOptions) -> None:
        self.client, self.plan, self.settings = client, plan, settings
        self.tasks: dict[str, tuple[int, int]] = {}

    def run(self, queue: deque[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        from distributed import as_completed

        done = as_completed()
        while queue or self.tasks:
            while queue and len(self.tasks) < self._limit():
                done.add(self._submit(*queue.popleft()))
            future = next(done)
            report = self._settle(future, queue)
            future.release()
            if report is not None:
                yield report

    def _limit(self) -> int:
        return self.settings.in_flight * max(1, len(self.client.scheduler_info()["workers"]))

    def _submit(self, shard: int, attempt: int) -> Future:
        future = self.client.submit(
            run_task, self.plan, shard, attempt, pure=False, retries=0, resources=self.settings.resources or None,
            key=f"{self.plan.pipeline}-{shard:05d}-{attempt}-{self.plan.signature[:8]}",
        )  # fmt: skip
        self.tasks[future.key] = (shard, attempt)
        return future

    def _settle(self, future: Future, queue: deque[tuple[int, int]]) -> dict[str, Any] | None:
        shard, attempt = self.tasks.pop(future.key)
        if future.status == "finished":
            outcome, value = future.result()
        else:
            outcome, value = "killed", str(future.exception() or future.status)
        if outcome == "done":
            return value  # type: ignore[no-any-return]
        if outcome == "end":
            name, message = value
            raise RUN_ENDING[name](message)
        if outcome == "failed" and attempt < MAX_ATTEMPTS:
            queue.append((shard, attempt + 1))
            return None
        return {"shard": shard, "status": "dead", "reason": value, "attempts": attempt}


def run_task(plan: Plan, shard: int, attempt: int) -> tuple[str, Any]:
    """Runs one shard inside a worker, with models that stay loaded in it."""
    from distributed import get_worker

    worker = get_worker()
    if not hasattr(worker, "data_engine_backends"):
        worker.data_engine_backends = BackendCache()
    try:
        return "done", run_shard(plan, shard, attempt, worker.data_engine_backends)
    except Exception as error:
        return classify(error)
