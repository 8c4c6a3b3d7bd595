"""What is in flight on a cluster: bounded, waiting for workers in the open, and exact about who killed a worker."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from data_engine.core.errors import ClusterError, ConfigError
from data_engine.runners.attempts import Outcome
from data_engine.runners.dask.cluster import ALLOWED_FAILURES, Cluster, lost_scheduler
from data_engine.runners.dask.worker import started_topic

MEMORY_TOPIC = "worker-restart-memory"
"""Under which Dask's nannies say that they ended a worker for its memory."""
PATIENCE_SECONDS = 5.0
"""Without workers before a word is said: one that died is back by then."""
_CANNOT_LOAD = (ImportError, AttributeError, TypeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be run by a worker.

    Attributes:
        item: What the caller knows it by.
        function: Importable; called with the run's identity, the key of the job and `arguments`.
        arguments: Small.
        gpus: GPUs it occupies.
        name: For people who look at the dashboard: pipeline and shard.
        alone: With nothing else of this run in flight.
        deaths: Workers that died while they had it, under earlier keys: their addresses.
        starts: How often it was started and not heard of again, under earlier keys.
        pins: Addresses it is kept to; empty: any.
    """

    item: Any
    function: Callable[..., Outcome]
    arguments: tuple[Any, ...]
    gpus: float
    name: str
    alone: bool = False
    deaths: tuple[str, ...] = ()
    starts: int = 0
    pins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Landed:
    """A job that came back.

    Attributes:
        item: As given.
        outcome: What its function returned, or ("failed", reason).
        deaths: Workers that died while they ran it; zero when it came back by itself.
    """

    item: Any
    outcome: Outcome
    deaths: int = 0


class Flight:
    """Jobs on their way; a context manager that cancels what is in flight when it is left.

    Args:
        cluster: Where they go.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.run, self.number, self.submitted = cluster.run, next(cluster.flights), itertools.count(1)
        self._queues: dict[float, deque[Job]] = {}
        self._suspects: deque[Job] = deque()
        self._running: dict[str, tuple[Job, Any]] = {}
        self._started: Counter[str] = Counter()
        self._deaths: dict[str, list[str]] = defaultdict(list)
        self._memory: dict[str, int] = {}
        self._waiting: dict[float, float] = {}
        self._told: set[float] = set()

    def __enter__(self) -> Flight:
        """Listens to what workers say about themselves."""
        from distributed import as_completed

        client = self.cluster.client
        self._done = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        client.subscribe_topic(started_topic(self.run), lambda event: self._started.update([event[1]]))
        client.subscribe_topic(MEMORY_TOPIC, lambda event: self._memory.update({event[1]["worker"]: event[1]["rss"]}))
        client.subscribe_topic("all", lambda event: self._bury(event[1]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels what is in flight."""
        client = self.cluster.client
        if client.status != "running":
            return
        with suppress(OSError, TimeoutError, RuntimeError):
            for topic in (started_topic(self.run), MEMORY_TOPIC, "all"):
                client.unsubscribe_topic(topic)
            client.cancel([future for _, future in self._running.values()], force=True)

    def add(self, job: Job, first: bool = False) -> None:
        """Queues a job, at the head where that ends something begun."""
        queue = self._queues.setdefault(job.gpus, deque())
        queue.appendleft(job) if first else queue.append(job)

    def landed(self) -> Iterator[Landed]:
        """Submits and yields until nothing is left; jobs may be added on the way.

        Raises:
            ClusterError: The scheduler is lost, or no worker came in time.
            ConfigError: No worker offers what a job asks for, or workers cannot load it.
        """
        while self._running or self._suspects or any(self._queues.values()):
            yield from self._recall()
            self._fill()
            self._check_takers()
            for future, result in self._next_batch():
                job, _ = self._running.pop(future.key, (None, None))
                if job:
                    yield from self._judge(job, future, result)
                future.release()

    def _recall(self) -> Iterator[Landed]:
        """Queues again what was kept to workers that are gone, for others have come in their place."""
        addresses = {member.address for member in self.cluster.members}
        for key, (job, future) in list(self._running.items()):
            if job.pins and not job.pins & addresses and self.cluster.takers(job.gpus):
                del self._running[key]
                self.cluster.client.cancel([future], force=True)
                deaths, starts = (*job.deaths, *self._deaths[key]), job.starts + self._started[key]
                if len(deaths) > ALLOWED_FAILURES:
                    yield from self._condemn(job, deaths, starts)
                elif job.alone:
                    self._suspects.append(replace(job, deaths=deaths, starts=starts))
                else:
                    self.add(replace(job, deaths=deaths, starts=starts), first=True)

    def _fill(self) -> None:
        if any(job.alone for job, _ in self._running.values()):
            return
        for gpus, queue in self._queues.items():
            aloft = sum(job.gpus == gpus for job, _ in self._running.values()) if queue else 0
            while queue and aloft < self._limit(gpus):
                self._submit(queue.popleft())
                aloft += 1
        if not self._running and self._suspects and self._limit(self._suspects[0].gpus):
            self._submit(self._suspects.popleft())

    def _limit(self, gpus: float) -> int:
        takers = len(self.cluster.takers(gpus))
        if not takers and self.cluster.apart(gpus):
            return 0
        # without workers, some for a cluster that scales itself
        return self.cluster.settings.in_flight * max(1, takers)

    def _submit(self, job: Job) -> None:
        self.cluster.check_connected()
        key = f"{job.name}-{self.run}.{self.number}.{next(self.submitted)}"
        job = replace(job, pins=self.cluster.pins(job.gpus))
        future = self.cluster.client.submit(
            job.function, self.run, key, *job.arguments, key=key, pure=False, retries=0,
            resources=self.cluster.wanted(job.gpus) or None, workers=sorted(job.pins) or None,
        )  # fmt: skip
        self._running[key] = job, future
        self._done.add(future)

    def _next_batch(self, seconds: float = 1.0) -> Sequence[tuple[Any, Any]]:
        """Returns what has come back, after a while also nothing, so that the caller can look around."""
        deadline = time.monotonic() + seconds
        while not self._done.has_ready() and time.monotonic() < deadline:
            with self._done.thread_condition:
                self._done.thread_condition.wait(0.1)
        return self._done.next_batch(block=False)  # type: ignore[no-any-return]

    def _judge(self, job: Job, future: Any, result: Any) -> Iterator[Landed]:
        """Yields what a future means; nothing when the job has to fly again on its own."""
        from distributed import KilledWorker

        if future.status == "finished":
            yield Landed(job.item, result)
        elif future.status != "error":
            reason = getattr(result, "reason", None) or future.status
            if reason in ("scheduler-connection-lost", "scheduler-restart"):
                raise lost_scheduler(reason.replace("-", " "))
            yield Landed(job.item, ("failed", f"the task was cancelled by someone else: {reason}"))
        elif isinstance(error := result[1], KilledWorker):
            starts, last = job.starts + self._started[future.key], error.last_worker
            known = [address for address in self._deaths[future.key] if address != last.address]
            deaths = (*job.deaths, *known, last.address)
            yield from self._condemn(job, deaths, starts, last.memory_limit)
        elif isinstance(error, _CANNOT_LOAD):
            raise ConfigError(_cannot_load(error)) from error
        else:
            yield Landed(job.item, ("failed", f"{type(error).__name__}: {error}"))

    def _condemn(self, job: Job, deaths: tuple[str, ...], starts: int, limit: int | None = None) -> Iterator[Landed]:
        """Yields the end of a job that killed its workers; one that only waited in some of them flies again alone."""
        if starts < len(deaths) and not job.alone:
            self._suspects.append(replace(job, alone=True, deaths=(), starts=0))
            return
        reason = f"killed {len(deaths)} workers, at last {deaths[-1]}"
        if used := [self._memory[address] for address in deaths if address in self._memory]:
            allowed = f" of {limit / 2**20:.0f} MiB" if limit else ""
            reason += f": exceeded the memory limit ({max(used) / 2**20:.0f} MiB{allowed}); give workers more memory"
        yield Landed(job.item, ("failed", reason), len(deaths))

    def _bury(self, event: Any) -> None:
        """Notes the tasks that a worker had when it died, from what the scheduler says of everything that happens."""
        if isinstance(event, dict) and event.get("action") == "remove-worker" and not event.get("expected"):
            for key in event["processing-tasks"]:
                self._deaths[key].append(event["worker"])

    def _check_takers(self) -> None:
        """Says once that nobody takes the jobs, and gives up in the end."""
        kinds = {gpus for gpus, queue in self._queues.items() if queue} | {j.gpus for j, _ in self._running.values()}
        kinds |= {job.gpus for job in self._suspects}
        short = {gpus for gpus in kinds if not any(member.usable for member in self.cluster.takers(gpus))}
        self._waiting = {gpus: since for gpus, since in self._waiting.items() if gpus in short}
        for gpus in short:
            waited = time.monotonic() - self._waiting.setdefault(gpus, time.monotonic())
            if waited > PATIENCE_SECONDS and gpus not in self._told:
                self._told.add(gpus)
                print(f"Dask: {self._shortage(gpus)}; waiting", file=sys.stderr)
            self._give_up(gpus, waited)

    def _give_up(self, gpus: float, waited: float) -> None:
        limit = self.cluster.settings.wait_seconds
        if limit is None or waited < limit:
            return
        sentence = f"{self._shortage(gpus)}; waited {limit:g} s (runner.options.wait_seconds)"
        if self.cluster.members and not self.cluster.takers(gpus):
            raise ConfigError(sentence)
        raise ClusterError(f"{sentence}. Committed shards are kept: run the same command to finish")

    def _shortage(self, gpus: float) -> str:
        wanted = " ".join(f"{name}={amount:g}" for name, amount in self.cluster.wanted(gpus).items())
        if not self.cluster.members:
            return "the cluster has no workers; start some with `dask worker`"
        if not self.cluster.takers(gpus):
            if not wanted:
                return "the workers without GPU are gone, and tasks without GPU keep away from the others"
            return (
                f"none of the {len(self.cluster.members)} workers offers {wanted}; start some with "
                f'`dask worker --resources "{wanted}"` (a local cluster: runner.options.worker_resources)'
            )
        return "all workers are paused, for their memory is nearly used up; raise their memory limit"


def _cannot_load(error: Exception) -> str:
    return (
        f"the Dask scheduler or a worker cannot load a task ({type(error).__name__}: {error}). Install the same "
        "version of this package, with its extras, on the scheduler and on all workers"
    )
