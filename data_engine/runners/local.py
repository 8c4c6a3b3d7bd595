"""The reference runner: a pool of spawned processes, one shard at a time each.

A process that dies takes only its shard with it: the shard is tried again in a fresh process and at last
recorded as dead, while the rest of the run goes on.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from data_engine.core.errors import ConfigError, ContractError, MissingExtraError, StorageError
from data_engine.core.plan import Plan

MAX_ATTEMPTS = 3
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RUN_ENDING = {c.__name__: c for c in (ConfigError, ContractError, StorageError)}


def run_local(
    plan: Plan, shards: Sequence[int], workers: int, options: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Runs the shards of a plan and yields a report for each, in order of completion.

    Args:
        plan: What to run.
        shards: Shards that are not committed yet.
        workers: Processes; never more than there are shards.
        options: There are none.

    Yields:
        Reports of `runners.shard.run_shard`, or {shard, status: "dead", reason, attempts}.

    Raises:
        ConfigError, ContractError, StorageError: The run cannot go on, whatever the shard.
    """
    if options:
        raise ConfigError(f"runner 'local' has no options, got {', '.join(options)}")
    pool = _Pool(plan, min(workers, len(shards)))
    try:
        yield from pool.run(deque((shard, 1) for shard in shards))
    finally:
        pool.stop()


@dataclass(slots=True)
class _Worker:
    process: Any
    connection: Connection
    task: tuple[int, int] | None = None


class _Pool:
    def __init__(self, plan: Plan, size: int) -> None:
        self.plan = plan
        self.context = multiprocessing.get_context("spawn")
        for variable in _ONE_THREAD:  # read when a child loads its libraries: processes are the parallelism
            os.environ.setdefault(variable, "1")
        self.workers = [self._start() for _ in range(size)]

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_work, args=(theirs, self.plan, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def run(self, queue: deque[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        while queue or any(worker.task for worker in self.workers):
            for worker in self.workers:
                if worker.task is None and queue:
                    worker.task = queue.popleft()
                    self._send(worker)
            for connection in wait([w.connection for w in self.workers if w.task]):
                worker = next(w for w in self.workers if w.connection is connection)
                report = self._receive(worker, queue)
                if report is not None:
                    yield report

    def _send(self, worker: _Worker) -> None:
        with suppress(OSError):  # it died while idle: reading says so, and the task goes to a fresh process
            worker.connection.send(worker.task)

    def _receive(self, worker: _Worker, queue: deque[tuple[int, int]]) -> dict[str, Any] | None:
        assert worker.task is not None
        (shard, attempt), worker.task = worker.task, None
        try:
            outcome, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            outcome, value = "failed", _death(worker.process.exitcode)
            self.workers[self.workers.index(worker)] = self._start()
        if outcome == "done":
            return value  # type: ignore[no-any-return]
        if outcome == "end":
            name, message = value
            raise RUN_ENDING[name](message)
        if attempt < MAX_ATTEMPTS:
            queue.append((shard, attempt + 1))
            return None
        return {"shard": shard, "status": "dead", "reason": value, "attempts": attempt}

    def stop(self) -> None:
        """Ends all processes; what they had not committed is done again by the next run."""
        for worker in self.workers:
            if worker.task is None:
                worker.connection.close()
            else:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (often the kernel's out-of-memory killer)" if name == "SIGKILL" else ""
        return f"the worker process was killed by {name}{hint}"
    return f"the worker process ended with exit code {exitcode}"


def _work(connection: Connection, plan: Plan, parent: int) -> None:
    """Main loop of a worker process."""
    from data_engine.backends.catalog import BackendCache
    from data_engine.runners.shard import run_shard

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    backends = BackendCache()
    while True:
        try:
            shard, attempt = connection.recv()
        except EOFError:
            break
        try:
            connection.send(("done", run_shard(plan, shard, attempt, backends)))
        except Exception as error:
            connection.send(classify(error))
    backends.close()


def classify(error: Exception) -> tuple[str, Any]:
    """Tells whether an error ends the run ("end", (class name, message)) or only this attempt ("failed", why)."""
    if isinstance(error, MissingExtraError):
        return "end", ("ConfigError", str(error))
    if type(error).__name__ in RUN_ENDING:
        return "end", (type(error).__name__, str(error))
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "end", ("StorageError", f"no space left on the device ({error}). Free space and run again.")
    return "failed", f"{type(error).__name__}: {error}"


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
