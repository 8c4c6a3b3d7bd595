"""Drives a plan: skips what is committed, hands the rest to a runner, keeps the books of dead shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_engine.core.plan import Listener, Plan
from data_engine.core.registry import lookup
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage
from data_engine.runners.protocol import Report, Runner
from data_engine.runners.shard import group_marker

ENTRY_POINTS = "data_engine.runners"
RUNNERS: dict[str, str] = {
    "local": "data_engine.runners.local:LocalRunner",
    "dask": "data_engine.runners.dask:DaskRunner",
    "beam": "data_engine.runners.beam:BeamRunner",
}
"""Name -> "module:Class(workers, options)" that is a `runners.protocol.Runner`."""


def open_runner(name: str, workers: int, options: Mapping[str, Any]) -> Runner:
    """Returns the runner `name`, to be used as a context manager.

    Raises:
        ConfigError: There is no such runner, or it has no such option.
    """
    return lookup("runner", name, RUNNERS, ENTRY_POINTS)(workers, options)  # type: ignore[no-any-return]


def execute(plan: Plan, runner: Runner, listener: Listener) -> list[Report]:
    """Runs a plan to its end and returns its dead shards.

    Args:
        plan: What to run.
        runner: How.
        listener: Is told of every shard.

    Returns:
        Reports of dead shards, by shard; empty when every shard is committed.
    """
    storage = Storage(plan.output, plan.storage_options)
    storage.remove_stale_scratch()
    open_shards = uncommitted(storage, plan)
    listener.planned(plan, plan.num_shards - len(open_shards))
    dead = []
    for report in runner.run(plan, open_shards) if open_shards else ():
        name = f"work/dead/{plan.pipeline}.part-{report['shard']:05d}.json"
        if report["status"] == "dead":
            dead.append(report)
            storage.write_json(name, report)
        else:
            storage.remove(name)
        listener.shard_done(plan, report)
    return sorted(dead, key=lambda report: report["shard"])


def uncommitted(storage: Storage, plan: Plan) -> list[int]:
    """Returns the shards whose last group is not committed for this very plan."""
    last = plan.groups[-1]
    present = set(storage.list(f"rejects/{plan.pipeline}.{last.name}"))
    return [
        shard
        for shard in range(plan.num_shards)
        if marker_name("", shard).lstrip("/") not in present or group_marker(storage, plan, last, shard) is None
    ]
