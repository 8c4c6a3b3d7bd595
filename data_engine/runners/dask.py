"""The Dask runner: one task per stretch of a shard on `distributed`; results are small reports.

A worker that dies loses nothing that is committed; a shard that kills every worker it meets becomes a dead shard. The
task is a function of an importable module, so that models are loaded once per worker and not once per task.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_engine.backends.catalog import BackendCache
from data_engine.core.config import Settings, validate
from data_engine.core.errors import MissingExtraError
from data_engine.core.plan import Plan
from data_engine.io.storage import Storage
from data_engine.runners.attempts import Outcome, Task, attempt_task, settle
from data_engine.runners.protocol import Report, Summary

if TYPE_CHECKING:
    from distributed import Client, Future


class DaskOptions(Settings):
    """Options of the runner.

    Attributes:
        address: Scheduler address, `tcp://host:port`; none: see `scheduler_file`, else a local cluster.
        scheduler_file: JSON file that a scheduler wrote.
        memory_limit: Memory of each worker of the local cluster, for example 4GiB.
        in_flight: Tasks submitted per worker at a time.
        cpu_resources: What a task without GPU occupies of a worker, for example {CPU: 1} for workers started with
            `--resources CPU=1`, so that these tasks keep away from GPU workers.
        gpu_resources: What a task occupies of a worker per GPU it asks for.
    """

    address: str | None = None
    scheduler_file: str | None = None
    memory_limit: str = "auto"
    in_flight: int = Field(default=2, ge=1)
    cpu_resources: dict[str, float] = Field(default_factory=dict)
    gpu_resources: dict[str, float] = Field(default_factory=lambda: {"GPU": 1.0})


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
        self._client: Client | None = None

    def __enter__(self) -> DaskRunner:
        """Connects with the first plan."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the cluster; a local one ends."""
        if self._client is not None:
            self._client.close()
            if self._client.cluster is not None:
                self._client.cluster.close()
            self._client = None

    @property
    def client(self) -> Client:
        """The connection, made when first asked for."""
        if self._client is None:
            self._client = _connect(self.settings, self.workers)
            print(f"Dask dashboard: {self._client.dashboard_link}", file=sys.stderr)
        return self._client

    def run(self, plan: Plan, shards: Sequence[int]) -> Iterator[Report]:
        """Runs the shards of a plan and yields a report for each, in order of completion."""
        from distributed import as_completed

        queue = deque(Task(shard) for shard in shards)
        running: dict[str, Task] = {}
        done = as_completed(loop=self.client.loop)
        while queue or running:
            while queue and len(running) < self._limit():
                future = self._submit(plan, queue.popleft(), running)
                done.add(future)
            future = next(done)
            settled = _settled(plan, running.pop(future.key), future)
            future.release()
            if isinstance(settled, Task):
                queue.appendleft(settled) if settled.attempt == 1 else queue.append(settled)
            else:
                yield settled

    def summarise(self, summary: Summary, storage: Storage, parts: Sequence[str]) -> Any:
        """Counts in the workers, as many parts per task as make tasks of some length."""
        size = max(1, min(64, -(-len(parts) // (4 * self.workers))))
        chunks = [parts[start : start + size] for start in range(0, len(parts), size)]
        futures = [self.client.submit(count_parts, summary, storage.uri, chunk, pure=False) for chunk in chunks]
        return summary.join([counted for chunk in self.client.gather(futures) for counted in chunk])

    def _limit(self) -> int:
        return self.settings.in_flight * max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))

    def _submit(self, plan: Plan, task: Task, running: dict[str, Task]) -> Future:
        gpus = plan.stretches[task.stretch].gpus
        wanted = {k: v * gpus for k, v in self.settings.gpu_resources.items()} if gpus else self.settings.cpu_resources
        future = self.client.submit(
            run_task, plan, task, pure=False, retries=0, resources=wanted or None,
            key=f"{plan.pipeline}-{task.shard:05d}.{task.stretch}-{task.attempt}-{plan.signature[:8]}",
        )  # fmt: skip
        running[future.key] = task
        return future


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


def _settled(plan: Plan, task: Task, future: Future) -> Report | Task:
    if future.status == "finished":
        return settle(plan, task, future.result())
    # the scheduler has tried it on several workers already
    return settle(plan, task, ("failed", str(future.exception() or future.status)), last_attempt=task.attempt)


def run_task(plan: Plan, task: Task) -> Outcome:
    """Runs one task inside a worker, with models that stay loaded in it."""
    from distributed import get_worker

    worker = get_worker()
    if not hasattr(worker, "data_engine_backends"):
        worker.data_engine_backends = BackendCache()
    return attempt_task(plan, task, worker.data_engine_backends)


def count_parts(summary: Summary, uri: str, parts: Sequence[str]) -> list[Any]:
    """Counts some parts inside a worker."""
    storage = Storage(uri)
    return [summary.count(storage, part) for part in parts]
