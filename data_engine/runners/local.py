"""The reference runner: a pool of spawned processes, one task at a time each.

A process that dies takes only its task with it: the shard is tried again in a fresh process and at last
recorded as dead, while the rest of the run goes on. Models stay loaded from one pipeline to the next.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from pydantic import field_validator

from data_engine.core.config import Settings, validate
from data_engine.core.plan import Plan
from data_engine.io.storage import Storage
from data_engine.runners.attempts import Outcome, Task, attempt_task, death, settle
from data_engine.runners.protocol import Report, Summary
from data_engine.runners.threads import one_thread

_READERS = 8
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)


class LocalOptions(Settings):
    """Options of the runner.

    Attributes:
        memory_limit: Data a process may hold, for example 4GiB; a shard that needs more fails, and the others go on.
    """

    memory_limit: str | None = None

    @field_validator("memory_limit")
    @classmethod
    def _is_size(cls, value: str | None) -> str | None:
        if value is not None and not _SIZE.fullmatch(value):
            raise ValueError("write a size such as 4GiB or 800MB")
        return value

    @property
    def memory_bytes(self) -> int | None:
        """The limit in bytes."""
        match = _SIZE.fullmatch(self.memory_limit or "")
        return int(float(match[1]) * _BYTES[match[2].upper()]) if match else None


class LocalRunner:
    """Runs plans in processes of this machine.

    Args:
        workers: Processes; never more than there are shards.
        options: See `LocalOptions`.

    Raises:
        ConfigError: An option is unknown.
    """

    def __init__(self, workers: int, options: Mapping[str, Any]) -> None:
        self.size = workers
        self.memory_limit = validate(LocalOptions, options, "runner.options").memory_bytes
        self.workers: list[_Worker] = []

    def __enter__(self) -> LocalRunner:
        """Starts nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all processes; what they had not committed is done again by the next run."""
        for worker in self.workers:
            worker.end()
        for worker in self.workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
        self.workers.clear()

    def run(self, plan: Plan, shards: Sequence[int]) -> Iterator[Report]:
        """Runs the shards of a plan and yields a report for each, in order of completion."""
        queue = deque(Task(shard) for shard in shards)
        while len(self.workers) < min(self.size, len(queue)):
            self.workers.append(_Worker.start(self.memory_limit))
        while queue or any(worker.task for worker in self.workers):
            for worker in self.workers:
                if worker.task is None and queue:
                    worker.give(plan, queue.popleft())
            for connection in wait([w.connection for w in self.workers if w.task]):
                worker = next(w for w in self.workers if w.connection is connection)
                task, outcome = self._receive(worker)
                settled = settle(plan, task, outcome)
                if isinstance(settled, Task):
                    queue.appendleft(settled) if settled.attempt == 1 else queue.append(settled)
                else:
                    yield settled

    def summarise(self, summary: Summary, storage: Storage, parts: Sequence[str]) -> Any:
        """Counts in threads of this process: reading a few columns is waiting for a disk or a store, not work."""
        counted: list[Any] = []
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(parts), _READERS * _READERS):
                counted += pool.map(partial(summary.count, storage), parts[start : start + _READERS * _READERS])
        return summary.join(counted)

    def _receive(self, worker: _Worker) -> tuple[Task, Outcome]:
        assert worker.task is not None
        task, worker.task = worker.task, None
        try:
            return task, worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            self.workers[self.workers.index(worker)] = _Worker.start(self.memory_limit)
            return task, ("failed", death(worker.process.exitcode))


@dataclass(slots=True)
class _Worker:
    process: Any
    connection: Connection
    task: Task | None = None
    plan: Plan | None = None

    @classmethod
    def start(cls, memory_limit: int | None) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, os.getpid(), memory_limit), daemon=True)
        with one_thread():
            process.start()
        theirs.close()
        return cls(process, ours)

    def give(self, plan: Plan, task: Task) -> None:
        """Sends a task, and its plan when it is another than the last."""
        self.task = task
        with suppress(OSError):  # it died while idle: reading says so, and the task goes to a fresh process
            self.connection.send((None if plan is self.plan else plan, task))
        self.plan = plan

    def end(self) -> None:
        if self.task is None:
            self.connection.close()
        else:
            self.process.terminate()


def _work(connection: Connection, parent: int, memory_limit: int | None) -> None:
    """Main loop of a worker process."""
    from data_engine.backends.catalog import BackendCache

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    _limit_memory(memory_limit)
    backends = BackendCache()
    plan: Any = None
    while True:
        try:
            changed, task = connection.recv()
        except EOFError:
            break
        plan = changed or plan
        connection.send(attempt_task(plan, task, backends))
    backends.close()


def _limit_memory(limit: int | None) -> None:
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
