"""What runs inside a Dask worker. In an importable module, so that models are loaded once per process and not per task.

A worker process does one task at a time, however many threads it has: back ends are not made to be shared by threads.
"""

from __future__ import annotations

import pickle
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import EngineError
from data_engine.core.plan import Plan
from data_engine.io.storage import Storage
from data_engine.runners.attempts import Outcome, Task, attempt_task, classify
from data_engine.runners.fingerprint import check_fingerprint, fingerprint
from data_engine.runners.protocol import Summary

if TYPE_CHECKING:
    from distributed import Worker


@dataclass(slots=True)
class Bench:
    """What the engine keeps in a worker process from task to task.

    Attributes:
        lock: Held by the task that runs.
        backends: Opened models.
        runs: Runs that use them; when the last one leaves they are closed.
        left: Runs that are over; what they still have queued here is not run.
        checked: Plans and stretches whose fingerprint is that of the machine that planned.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    backends: BackendCache = field(default_factory=BackendCache)
    runs: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    checked: set[tuple[str, int]] = field(default_factory=set)

    def close_if_unused(self) -> None:
        """Closes the models when no run uses them."""
        if not self.runs:
            self.backends.close()
            self.checked.clear()


def run_task(run: str, key: str, plan: Plan, task: Task, expected: Mapping[str, str] | None) -> Outcome:
    """Runs one task; never raises.

    Args:
        run: Identity of the run.
        key: Key of the task in the cluster.
        plan: What to run.
        task: Which part of it.
        expected: Fingerprint of the machine that planned; none: this is that machine.
    """
    return _alone(run, key, lambda bench, address: _attempt(bench, address, plan, task, expected))


def count_parts(run: str, key: str, summary: Summary, uri: str, parts: Sequence[str]) -> Outcome:
    """Counts some parts of an output folder."""
    return _alone(run, key, lambda bench, address: _count(summary, uri, parts))


def leave(run: str, dask_worker: Worker) -> None:
    """Says that a run is over: models that no other run uses are closed, now or after the task that uses them."""
    bench = _bench(dask_worker)
    bench.left.add(run)
    bench.runs.discard(run)
    if bench.lock.acquire(blocking=False):
        try:
            bench.close_if_unused()
        finally:
            bench.lock.release()


def dask_setup(worker: Worker) -> None:
    """Preload of a local cluster's workers: Ctrl-C is the business of the process that started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _alone(run: str, key: str, action: Callable[[Bench, str], Outcome]) -> Outcome:
    from distributed import get_worker

    worker = get_worker()
    bench = _bench(worker)
    with bench.lock:
        if run in bench.left:
            return "failed", "the run is over"
        if not bench.runs:
            _wait_for_nanny(worker)
        bench.runs.add(run)
        worker.log_event(started_topic(run), key)  # if the process dies now, this task is the one to blame
        try:
            return action(bench, worker.address)
        finally:
            if run in bench.left:
                bench.runs.discard(run)
                bench.close_if_unused()


def _wait_for_nanny(worker: Worker, seconds: float = 10.0) -> None:
    """Waits until the nanny knows that the process has started: one that dies before is not started again."""
    from distributed.utils import sync

    deadline = time.monotonic() + seconds
    with suppress(OSError, TimeoutError, RuntimeError):
        while worker.nanny and time.monotonic() < deadline:
            answer = sync(worker.loop, worker.rpc(worker.nanny).run, function=pickle.dumps(status_name))
            if answer.get("result") != "starting":
                return
            time.sleep(0.05)


def status_name(dask_worker: Any) -> str:
    """Returns the status of the server it is run in."""
    return str(dask_worker.status.name)


def _bench(worker: Worker) -> Bench:
    found: Bench = worker.__dict__.setdefault("data_engine_bench", Bench())
    return found


def _attempt(bench: Bench, address: str, plan: Plan, task: Task, expected: Mapping[str, str] | None) -> Outcome:
    seen = (plan.signature, task.stretch)
    if expected is not None and seen not in bench.checked:
        try:
            check_fingerprint(expected, fingerprint(plan, plan.stretches[task.stretch]), address)
        except EngineError as error:
            return "end", ("ConfigError", f"worker {address}: {error}")
        bench.checked.add(seen)
    return attempt_task(plan, task, bench.backends)


def _count(summary: Summary, uri: str, parts: Sequence[str]) -> Outcome:
    storage = Storage(uri)
    try:
        return "done", [summary.count(storage, part) for part in parts]
    except Exception as error:
        return classify(error)


def started_topic(run: str) -> str:
    """Returns the name under which tasks of a run say that they have started."""
    return f"data-engine-{run}"
