"""Attempts of a shard: what an error means, what is tried again, and when a shard is dead. The same on every engine."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import ClusterError, ConfigError, ContractError, MissingExtraError, StorageError
from data_engine.core.plan import Plan
from data_engine.io.retry import describe
from data_engine.runners.protocol import Report
from data_engine.runners.shard import run_shard

MAX_ATTEMPTS = 3
RUN_ENDING = {c.__name__: c for c in (ConfigError, ContractError, StorageError, ClusterError)}
Outcome = tuple[str, Any]
"""("done", report), ("failed", why), or ("end", (class name, message)) when the run cannot go on."""


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt of one stretch of a shard.

    Attributes:
        shard: Number of the shard.
        stretch: Position among `plan.stretches`.
        attempt: From 1.
        groups: Markers of the groups before the stretch.
    """

    shard: int
    stretch: int = 0
    attempt: int = 1
    groups: tuple[Any, ...] = ()


def attempt_task(
    plan: Plan, task: Task, backends: BackendCache, rows: Iterator[pa.RecordBatch] | None = None
) -> Outcome:
    """Runs a task where the rows are; never raises.

    Args:
        plan: What to run.
        task: Which part of it.
        backends: Opened models of this process.
        rows: What the plan's first group reads, where the engine has brought it; none: read from storage.
    """
    try:
        return "done", run_shard(plan, task.shard, task.attempt, backends, plan.stretches[task.stretch], rows)
    except Exception as error:
        return classify(error)


def classify(error: Exception) -> Outcome:
    """Tells whether an error ends the run or only this attempt."""
    if isinstance(error, MissingExtraError):
        return "end", ("ConfigError", str(error))
    if type(error).__name__ in RUN_ENDING:
        return "end", (type(error).__name__, str(error))
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "end", ("StorageError", f"no space left on the device ({error}). Free space and run again.")
    return "failed", describe(error)


def settle(plan: Plan, task: Task, outcome: Outcome, last_attempt: int = MAX_ATTEMPTS) -> Report | Task:
    """Returns the report of a shard that is done or dead, or the task that comes next.

    Raises:
        ConfigError, ContractError, StorageError: The outcome ends the run.
    """
    kind, value = outcome
    if kind == "end":
        name, message = value
        raise RUN_ENDING[name](message)
    if kind == "done":
        groups = (*task.groups, *value["groups"])
        if task.stretch + 1 < len(plan.stretches):
            return Task(task.shard, task.stretch + 1, 1, groups)
        return {**value, "groups": list(groups)}
    if task.attempt < last_attempt:
        return replace(task, attempt=task.attempt + 1)
    return {"shard": task.shard, "status": "dead", "reason": value, "attempts": task.attempt}


def death(exitcode: int | None) -> str:
    """Returns how a process died, in a sentence; a negative exit code is a signal."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (often the kernel's out-of-memory killer)" if name == "SIGKILL" else ""
        return f"the worker process was killed by {name}{hint}"
    return f"the worker process ended with exit code {exitcode}"
