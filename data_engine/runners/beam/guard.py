"""Guarded attempts: a shard runs in a child of Beam's worker, so that a crash ends the child and not the worker.

Beam answers a dead worker by waiting for ever (in-process, portable) or by failing the job after a few tries
(Dataflow, Flink). With a guard it never sees one: the shard is tried again in a fresh child, and is dead at last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from data_engine.backends.catalog import BackendCache
from data_engine.core.plan import Plan
from data_engine.io.exchange import ordered
from data_engine.runners.attempts import Outcome, Task, attempt_task, death
from data_engine.runners.beam.child import Child, parent


class Guard:
    """One child that runs one task at a time and keeps its models from task to task."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._plan: Plan | None = None

    def attempt(
        self, plan: Plan, task: Task, shares: Sequence[bytes] | None, beat: Callable[[], None], seconds: float
    ) -> Outcome:
        """Runs a task; never raises for what the task does.

        Args:
            plan: What to run.
            task: Which part of it.
            shares: Rows that Beam has grouped, as Arrow streams; none: the task reads storage.
            beat: Called every so often while the task runs.
            seconds: How often.
        """
        if self._child is None:
            self._child, self._plan = Child.start("data_engine.runners.beam.guard"), None
        try:
            self._send(self._child, plan, task, shares)
            while not self._child.connection.poll(seconds):
                beat()
            return self._child.connection.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            child, self._child = self._child, None
            return "failed", death(child.died())

    def _send(self, child: Child, plan: Plan, task: Task, shares: Sequence[bytes] | None) -> None:
        known = plan == self._plan
        child.connection.send((None if known else plan, task, None if shares is None else len(shares)))
        for share in shares or ():
            child.connection.send_bytes(share)
        self._plan = plan


class GuardPool:
    """The guards of one Beam worker process.

    Args:
        size: Tasks at a time; a runner that hands out more at once lets them wait.
    """

    def __init__(self, size: int) -> None:
        self._free = threading.Semaphore(size)
        self._idle: list[Guard] = []

    @contextmanager
    def lend(self) -> Iterator[Guard]:
        """Lends a guard, the one used last first."""
        with self._free:
            guard = self._idle.pop() if self._idle else Guard()
            try:
                yield guard
            finally:
                self._idle.append(guard)


def encode_share(rows: pa.RecordBatch) -> bytes:
    """Returns rows as an Arrow stream with their schema."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode_shares(shares: Sequence[bytes]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of Arrow streams."""
    for share in shares:
        with pa.ipc.open_stream(share) as reader:
            yield from reader


def main() -> None:
    """Runs tasks as they come until the worker hangs up."""
    connection = parent()
    backends = BackendCache()
    plan: Plan | None = None
    while True:
        try:
            changed, task, count = connection.recv()
            shares = None if count is None else [connection.recv_bytes() for _ in range(count)]
        except (EOFError, OSError):
            break
        plan = changed or plan
        assert plan is not None
        rows = ordered(decode_shares(shares), plan.exchange) if shares is not None and plan.exchange else None
        connection.send(attempt_task(plan, task, backends, rows))
    backends.close()


if __name__ == "__main__":
    main()
